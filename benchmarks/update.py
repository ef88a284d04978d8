"""`update`: one site, one update, by each system, as often as wanted; the figures of all of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.arrival import TOGETHER, Arrival
from benchmarks.measure import SYSTEMS, Floor, Scenario, SystemResult, measure_floor, measure_system
from benchmarks.outcome import check_writable, save
from benchmarks.progress import Progress
from benchmarks.report import Report, Round
from benchmarks.sizes import argument, parse_bytes, parse_rate, readable_bytes
from benchmarks.testbed import (
    Image,
    SiteSpec,
    Testbed,
    TestbedError,
    debian_image,
    missing_prerequisite,
    synthetic_image,
)

__all__ = [
    "DEBIAN",
    "Plan",
    "add_arguments",
    "add_site_arguments",
    "conduct",
    "image_of",
    "sensible_site",
    "measure",
    "run",
]

_SEED = 1
_COPIES_FETCHED, _COPIES_PULLED = 4, 8
"""How many times the image's size a node may need on disk, generously: two stores, staging, unpacked."""

DEBIAN = "debian"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `size` is "debian" or the size of a random image; rates are bit/s."""

    nodes: int = 8
    size: str = DEBIAN
    layers: int = 4
    wan_bit_s: int = 100_000_000
    lan_bit_s: int = 1_000_000_000
    systems: tuple[str, ...] = SYSTEMS
    arrival: Arrival = TOGETHER
    seeder: str = "warm"
    client: str = "fetch"
    repeat: int = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Build an edge site on this machine (network namespaces, a real containerd each, shaped links)\n"
        "and update all its nodes, by each of --systems in turn:\n"
        "  direct        every node from the registry, as without any help\n"
        "  pull-through  through one caching registry at the site (Debian's docker-registry)\n"
        "  p2pd          through the p2pd of each node, with a seeder at the centre\n"
        "Everything is compared with one plain download (curl) of the same bytes over the same WAN, in the\n"
        "same testbed (limit_s); with a cold seeder, through a cold seeder. A run in which this machine had\n"
        "no CPU to spare is said to be CPU-bound."
    )
    parser.epilog = (
        "example, a rate that two cores carry:\n"
        "  python -m benchmarks update --nodes 4 --size 32M --wan 25M --systems p2pd --json build/update.json"
    )
    add_site_arguments(parser, nodes=8, wan="100M")
    parser.add_argument(
        "--size", default=DEBIAN, help="size of a random image, e.g. 64M, or 'debian' (debian)"
    )
    parser.add_argument("--layers", type=int, default=4, help="layers of a random image (4)")
    parser.add_argument(
        "--arrival",
        type=argument(Arrival.parse, "together, rolling:2 or late:1"),
        default="together",
        help="together; rolling:SECONDS, one after the other; late:NODES, after all the others (together)",
    )
    parser.add_argument("--repeat", type=int, default=1, help="how often; medians and spread are shown (1)")


def add_site_arguments(parser: argparse.ArgumentParser, *, nodes: int, wan: str) -> None:
    """What `update` and the demo share."""
    rate = argument(parse_rate, "100M or 1G (bit/s)")
    parser.add_argument("--nodes", type=int, default=nodes, help=f"nodes of the site ({nodes})")
    parser.add_argument("--wan", type=rate, default=wan, help=f"WAN, bit/s, each way ({wan})")
    parser.add_argument("--lan", type=rate, default="1G", help="LAN port of each node, bit/s (1G)")
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
    plan = Plan(
        nodes=options.nodes,
        size=options.size,
        layers=options.layers,
        wan_bit_s=options.wan,
        lan_bit_s=options.lan,
        systems=tuple(options.systems.split(",")),
        arrival=options.arrival,
        seeder=options.seeder,
        client=options.client,
        repeat=options.repeat,
    )
    return conduct(plan, options.json, "--size")


def conduct(plan: Plan, out: Path | None, size_option: str) -> int:
    """Measure, save, print; the exit code. `size_option` is what the user calls the image's size."""
    check_writable(out)
    report = measure(plan, size_option)
    if out is not None:
        save(report.document(), out)
    print("\n" + report.text())
    return 0 if report.verified else 1


def measure(plan: Plan, size_option: str = "--size") -> Report:
    """Build the site and run everything. Raises TestbedError."""
    if unknown := [name for name in plan.systems if name not in SYSTEMS]:
        raise TestbedError(f"no such system: {unknown[0]}; choose of {', '.join(SYSTEMS)}")
    if plan.repeat < 1:
        raise TestbedError("--repeat: once is the least")
    if (why := missing_prerequisite()) is not None:
        raise TestbedError(why)
    image = image_of(plan.size, plan.layers, size_option)
    spec = _spec(plan, image)
    scenario = Scenario(image, plan.client, plan.seeder == "warm", plan.arrival)
    with Testbed(spec) as bed:
        bed.start_origin()
        ref = bed.push(image)
        rounds = [_round(bed, ref, scenario, plan) for _ in range(plan.repeat)]
    return Report(
        nodes=plan.nodes,
        image=plan.size if plan.size == DEBIAN else "random",
        image_bytes=image.blob_bytes,
        layers=len(image.blobs) - 1,
        wan_bit_s=plan.wan_bit_s,
        lan_bit_s=plan.lan_bit_s,
        client=plan.client,
        seeder=plan.seeder,
        rounds=rounds,
        arrival=str(plan.arrival),
    )


def image_of(size: str, layers: int, option: str = "--size") -> Image:
    """A random image of `size`, or Debian's. Raises TestbedError."""
    if size == DEBIAN:
        return debian_image()
    try:
        return synthetic_image(_SEED, parse_bytes(size), layers)
    except ValueError as error:
        raise TestbedError(f"{option} {size}: {error}; say 'debian' or a size such as 64M") from error


def _round(bed: Testbed, ref: str, scenario: Scenario, plan: Plan) -> Round:
    progress = Progress("one download", scenario.image.blob_bytes, sys.stderr)
    through = "" if scenario.warm_seeder else " through a cold seeder"
    progress.say(f"one plain download over the WAN{through}, the yardstick…")
    floor = measure_floor(bed, scenario.image, cold_seeder=not scenario.warm_seeder)
    progress.finish(f"{floor.seconds:6.1f} s  {readable_bytes(floor.wan_bytes)} over the WAN{through}")
    return Round(floor, [_measure(bed, ref, scenario, system, floor) for system in plan.systems])


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


def _spec(plan: Plan, image: Image) -> SiteSpec:
    copies = _COPIES_PULLED if plan.client == "pull" else _COPIES_FETCHED
    with sensible_site():
        spec = SiteSpec(
            nodes=plan.nodes,
            wan_bit_s=plan.wan_bit_s,
            lan_bit_s=plan.lan_bit_s,
            origin_bit_s=plan.wan_bit_s if plan.seeder == "cold" else None,
            disk_bytes=image.blob_bytes * copies * (plan.nodes + 3),
        )
        plan.arrival.waves(plan.nodes)
    return spec


@contextmanager
def sensible_site() -> Iterator[None]:
    """What is wrong with a site that was asked for, as the user's TestbedError."""
    try:
        yield
    except ValueError as error:
        raise TestbedError(f"such a site cannot be built: {error}") from error
