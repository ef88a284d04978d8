"""The demo: one site, one update, as it is done today and with p2pd."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.measure import SYSTEMS, Floor, Scenario, SystemResult, measure_floor, measure_system
from benchmarks.progress import Progress
from benchmarks.report import Report, parse_bytes, parse_rate, readable_bytes
from benchmarks.testbed import (
    Image,
    SiteSpec,
    Testbed,
    TestbedError,
    debian_image,
    missing_prerequisite,
    synthetic_image,
)

__all__ = ["add_arguments", "run"]

_SEED = 1
_COPIES_FETCHED, _COPIES_PULLED = 4, 8
"""How many times the image's size a node may need on disk, generously: two stores, staging, unpacked."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=8, help="nodes of the site (8)")
    parser.add_argument("--wan", type=_rate, default="100M", help="WAN, bit/s, each way (100M)")
    parser.add_argument("--lan", type=_rate, default="1G", help="LAN port of each node, bit/s (1G)")
    parser.add_argument("--image", default="debian", help="'debian', or the size of a random image, e.g. 64M")
    parser.add_argument("--layers", type=int, default=4, help="layers of a random image (4)")
    parser.add_argument(
        "--seeder",
        choices=("warm", "cold"),
        default="warm",
        help="warm holds the image; cold pulls it during the update, over a link as fast as the WAN",
    )
    parser.add_argument("--client", choices=("fetch", "pull"), default="fetch", help="pull also unpacks")
    parser.add_argument(
        "--systems", default=",".join(SYSTEMS), help="comma-separated, of " + ", ".join(SYSTEMS)
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 when every node of every system holds the right bytes. Raises TestbedError."""
    systems = _systems(options.systems)
    if (why := missing_prerequisite()) is not None:
        raise TestbedError(why)
    if options.json is not None:
        _check_writable(options.json)
    image = _image(options)
    spec = _spec(options, image)
    scenario = Scenario(image, options.client, options.seeder == "warm")
    with Testbed(spec) as bed:
        bed.start_origin()
        ref = bed.push(image)
        progress = Progress("one download", image.blob_bytes, sys.stderr)
        progress.say("one plain download over the WAN, the yardstick…")
        floor = measure_floor(bed, image)
        progress.finish(f"{floor.seconds:6.1f} s  {readable_bytes(floor.wan_bytes)} over the WAN")
        results = [_measure(bed, ref, scenario, system, floor) for system in systems]
    report = Report(
        nodes=spec.nodes,
        image=options.image if options.image == "debian" else "random",
        image_bytes=image.blob_bytes,
        layers=len(image.blobs) - 1,
        wan_bit_s=spec.wan_bit_s,
        lan_bit_s=spec.lan_bit_s,
        client=options.client,
        seeder=options.seeder,
        floor=floor,
        results=results,
    )
    if options.json is not None:
        options.json.write_text(json.dumps(report.document(), indent=2) + "\n")
    print("\n" + report.text())
    return 0 if all(result.verified for result in results) else 1


def _measure(bed: Testbed, ref: str, scenario: Scenario, system: str, floor: Floor) -> SystemResult:
    progress = Progress(system, scenario.image.blob_bytes, sys.stderr)
    progress.say("starting…")
    try:
        result = measure_system(bed, ref, scenario, system, floor, progress.observe)
    except TestbedError as error:
        result = SystemResult(system, [0.0], 0, 0.0, errors=[str(error)])
    if result.verified:
        progress.finish(
            f"{result.site_s:6.1f} s  {readable_bytes(result.wan_bytes)} over the WAN, all content verified"
        )
    else:
        progress.finish(f"failed: {result.errors[0]}")
    return result


def _rate(text: str) -> int:
    try:
        return parse_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; say for instance 100M or 1G (bit/s)") from error


def _check_writable(path: Path) -> None:
    """Before minutes of work, not after."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise TestbedError(f"--json {path}: {error.strerror}; name a file that can be written") from error


def _spec(options: argparse.Namespace, image: Image) -> SiteSpec:
    copies = _COPIES_PULLED if options.client == "pull" else _COPIES_FETCHED
    try:
        return SiteSpec(
            nodes=options.nodes,
            wan_bit_s=options.wan,
            lan_bit_s=options.lan,
            origin_bit_s=options.wan if options.seeder == "cold" else None,
            disk_bytes=image.blob_bytes * copies * (options.nodes + 3),
        )
    except ValueError as error:
        raise TestbedError(f"such a site cannot be built: {error}") from error


def _systems(text: str) -> list[str]:
    systems = text.split(",")
    if unknown := [name for name in systems if name not in SYSTEMS]:
        raise TestbedError(f"no such system: {unknown[0]}; choose of {', '.join(SYSTEMS)}")
    return systems


def _image(options: argparse.Namespace) -> Image:
    if options.image == "debian":
        return debian_image()
    try:
        return synthetic_image(_SEED, parse_bytes(options.image), options.layers)
    except ValueError as error:
        raise TestbedError(f"--image {options.image}: {error}; say 'debian' or a size such as 64M") from error
