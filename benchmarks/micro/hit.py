"""`hit`: how fast a node serves what it holds, to a client on the same machine."""

from __future__ import annotations

import argparse
import http.client
import statistics
import time
import urllib.parse
from pathlib import Path

from benchmarks.machine import LoadWatch, background_share
from benchmarks.micro.daemon import usage_of
from benchmarks.outcome import Outcome, check_writable
from benchmarks.sizes import argument, parse_bytes
from benchmarks.testbed import Image, Node, SiteSpec, Testbed, TestbedError
from benchmarks.testbed.node import MIRROR_URL, ORIGIN
from benchmarks.update import image_of
from p2pd.model.content import OCI_MANIFEST, Descriptor

__all__ = ["add_arguments", "run"]

_REQUESTS = 200
_LABELS = {
    "mb_s": "a layer, MB/s",
    "cpu_ms_per_mb": "p2pd's CPU for it, ms/MB",
    "ttfb_ms": "a manifest: median time to its headers, ms",
    "ttfb_p95_ms": "the same, 95th percentile, ms",
    "ttfb_new_ms": "the same on a new connection, median, ms",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "One node holds an image of one layer. curl, on the node, fetches the layer from the mirror to\n"
        f"/dev/null; then the manifest is asked for by its digest, {_REQUESTS} times on a kept connection\n"
        "and as often on new ones. Client and daemon share this machine's cores."
    )
    size = argument(parse_bytes, "256M")
    parser.add_argument("--size", type=size, default="256M", help="bytes of the layer (256M)")
    parser.add_argument("--repeat", type=int, default=5, help="how often (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def run(options: argparse.Namespace) -> int:
    """Raises TestbedError."""
    check_writable(options.json)
    image = image_of(str(options.size), 1)
    spec = SiteSpec(nodes=1, wan_bit_s=2_000_000_000, disk_bytes=6 * options.size)
    runs, loads = [], []
    with Testbed(spec) as bed:
        bed.start_origin()
        ref = bed.push(image)
        bed.start_seeder()
        bed.warm_seeder(ref, image)
        bed.start_p2pds()
        node = bed.node(0)
        _fetch(bed, image)  # now the node holds it
        if node.http("GET", _manifest_path(image)).content != image.path(image.manifest.digest).read_bytes():
            raise TestbedError("the node's manifest is not the image's")
        for _ in range(options.repeat):
            watch = LoadWatch(background_share(1.0))
            before = usage_of(node).cpu_s
            seconds = _fetch(bed, image)
            spent = usage_of(node).cpu_s - before
            loads.append(watch.finish())
            megabytes = _layer(image).size / 1e6
            figures = {"mb_s": megabytes / seconds, "cpu_ms_per_mb": spent * 1000 / megabytes}
            runs.append(figures | _first_bytes(node, image))
    scenario = {"layer_bytes": _layer(image).size, "requests": _REQUESTS}
    return Outcome("hit", scenario, _LABELS, runs, loads, judged=False).finish(options.json)


def _layer(image: Image) -> Descriptor:
    return max(image.blobs, key=lambda blob: blob.size)


def _fetch(bed: Testbed, image: Image) -> float:
    """Seconds of one curl on node 0, connection included."""
    url = f"{MIRROR_URL}/v2/app/blobs/{_layer(image).digest}?ns={ORIGIN}"
    command = [
        "curl",
        "-sSf",
        "--noproxy",
        "*",
        "-o",
        "/dev/null",
        "-w",
        "%{time_total} %{size_download}",
        url,
    ]
    seconds, size = bed.outer.run(command, "n0", timeout=600).stdout.split()
    if int(size) != _layer(image).size:
        raise TestbedError(f"the mirror gave {size} bytes of {_layer(image).size}")
    return float(seconds)


def _manifest_path(image: Image) -> str:
    return f"/v2/app/manifests/{image.manifest.digest}?ns={ORIGIN}"


def _first_bytes(node: Node, image: Image) -> dict[str, float]:
    path = _manifest_path(image)

    def kept() -> list[float]:
        connection = _connection()
        try:
            _ask(connection, path)  # the connection's own cost is not the manifest's
            return [_ask(connection, path) for _ in range(_REQUESTS)]
        finally:
            connection.close()

    def new() -> list[float]:
        found = []
        for _ in range(_REQUESTS):
            connection = _connection()
            found.append(_ask(connection, path))
            connection.close()
        return found

    times, fresh = node.inside(kept), node.inside(new)
    return {
        "ttfb_ms": 1000 * statistics.median(times),
        "ttfb_p95_ms": 1000 * statistics.quantiles(times, n=20)[-1],
        "ttfb_new_ms": 1000 * statistics.median(fresh),
    }


def _connection() -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urllib.parse.urlsplit(MIRROR_URL).netloc, timeout=10)


def _ask(connection: http.client.HTTPConnection, path: str) -> float:
    begun = time.perf_counter()
    connection.request("GET", path, headers={"Accept": OCI_MANIFEST})
    answer = connection.getresponse()
    seconds = time.perf_counter() - begun
    answer.read()
    if answer.status != http.client.OK:
        raise TestbedError(f"the mirror answered {answer.status} for a manifest that it holds")
    return seconds
