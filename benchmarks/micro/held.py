"""`held`: what many held blobs cost a node at its start and in memory."""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import xxhash

from benchmarks.machine import LoadWatch, background_share
from benchmarks.micro.daemon import MIB, start_timed, usage_of
from benchmarks.outcome import Outcome, check_writable
from benchmarks.testbed import Node, SiteSpec, Testbed, TestbedError
from benchmarks.testbed.live_site import metric
from benchmarks.testbed.node import ORIGIN
from p2pd.io.pieces import PieceTable, entry_of
from p2pd.io.places import Places
from p2pd.model.layout import SHA1_BYTES, SMALL_BLOB, Layout
from p2pd.model.reference import Digest

__all__ = ["add_arguments", "fill", "run"]

_SETTLE_S = 3.0
_SMALL, _LARGE = 16 << 10, SMALL_BLOB + (256 << 10)
_TAIL = 8
_LABELS = {
    "ready_s": "exec to ready, s",
    "ready_empty_s": "the same with an empty store, s",
    "rss_growth_mib": "resident (VmRSS) more than with an empty store, MiB",
    "rss_mib": "resident (VmRSS, mapped files included), MiB",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Start a node with an empty store, then with one of many blobs: half of them manifests and\n"
        f"configs of {_SMALL >> 10} KiB, half layers of {_LARGE >> 10} KiB with piece checksums, all valid\n"
        "(but mostly holes, so that a run needs little disk). The page cache is warm."
    )
    parser.add_argument("--blobs", type=int, default=5000, help="held blobs (5000)")
    parser.add_argument("--repeat", type=int, default=3, help="starts with the full store (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def run(options: argparse.Namespace) -> int:
    """Raises TestbedError."""
    check_writable(options.json)
    runs, loads = [], []
    with Testbed(SiteSpec(nodes=1, on_disk=True)) as bed:
        node = bed.node(0)
        empty = _started(node)
        node.kill()
        last = fill(Places(node.files / "p2pd" / "store"), options.blobs)
        for _ in range(options.repeat):
            watch = LoadWatch(background_share(1.0))
            ready_s, rss = _started(node)
            loads.append(watch.finish())
            _check(node, last, options.blobs)
            runs.append(
                {
                    "ready_s": ready_s,
                    "ready_empty_s": empty[0],
                    "rss_growth_mib": rss - empty[1],
                    "rss_mib": rss,
                }
            )
            node.kill()
    return Outcome("held", {"blobs": options.blobs}, _LABELS, runs, loads, judged=False).finish(options.json)


def fill(places: Places, count: int) -> Digest:
    """Make a store of `count` valid blobs where there is none yet; the last one's digest."""
    if count < 1:
        raise TestbedError("--blobs: one is the least")
    kinds = (_Kind(_SMALL), _Kind(_LARGE))
    for number in range(count):
        last = kinds[number % 2].write(places, number.to_bytes(8, "big"))
    return last


class _Kind:
    """Blobs of one size that differ in their last bytes alone: what is before them is hashed once."""

    def __init__(self, size: int) -> None:
        self._size = size
        zeros = bytes(size - _TAIL)
        whole, rest = divmod(size - _TAIL, Layout(size).piece_length)
        piece = zeros[: Layout(size).piece_length]
        self._sha256 = hashlib.sha256(zeros)
        self._sha1s = hashlib.sha1(piece).digest() * whole
        self._xxh3s = xxhash.xxh3_64_digest(piece) * whole
        self._end = zeros[:rest]

    def write(self, places: Places, tail: bytes) -> Digest:
        sha256 = self._sha256.copy()
        sha256.update(tail)
        digest = Digest(sha256.hexdigest())
        path = places.blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.seek(self._size - _TAIL)
            file.write(tail)
        if self._size > SMALL_BLOB:
            end = entry_of(self._end + tail)
            sha1s, xxh3s = self._sha1s + end[:SHA1_BYTES], self._xxh3s + end[SHA1_BYTES:]
            places.sidecar(digest).write_bytes(PieceTable(self._size, sha1s, xxh3s).encode())
        return digest


def _started(node: Node) -> tuple[float, float]:
    """Seconds to ready, and MiB resident a little later."""
    ready_s = start_timed(node)
    time.sleep(_SETTLE_S)
    return ready_s, usage_of(node).rss / MIB


def _check(node: Node, digest: Digest, count: int) -> None:
    """What was measured must have been a node that holds and serves all of it."""
    if (held := metric(node, "p2pd_store_blobs")) != count:
        raise TestbedError(f"the node says that it holds {held:.0f} of {count} blobs")
    body = node.http("GET", f"/v2/app/blobs/{digest}?ns={ORIGIN}").content
    if hashlib.sha256(body).hexdigest() != digest.hex:
        raise TestbedError("the node served wrong bytes of a held blob")
