"""`unpack`: a pull, which unpacks, against fetching alone and unpacking alone."""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.machine import LoadWatch, background_share
from benchmarks.measure import Floor, Scenario, SystemResult, measure_floor, measure_system
from benchmarks.outcome import Outcome, check_writable, scenario_of
from benchmarks.sizes import argument, parse_rate
from benchmarks.testbed import FetchOutcome, SiteSpec, Testbed, TestbedError
from benchmarks.update import image_of, sensible_site

__all__ = ["add_arguments", "run"]

_COPIES = 8
_TIMEOUT_S = 600.0
_LABELS = {
    "pull_s": "pull, s",
    "fetch_s": "fetch alone, s",
    "unpack_s": "unpack alone, s",
    "ratio": "pull / (fetch + unpack)",
    "limit_s": "one plain download, s",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Update a site with p2pd three times over: `ctr content fetch` (distribution alone), `ctr images\n"
        "pull` of what is already there (unpacking alone), and `ctr images pull` from nothing. Where one\n"
        "layer can be unpacked while the next one comes, a pull takes less than the two in turn."
    )
    rate = argument(parse_rate, "50M (bit/s)")
    parser.add_argument("--nodes", type=int, default=2, help="nodes of the site (2)")
    parser.add_argument("--size", default="64M", help="size of a random image, or 'debian' (64M)")
    parser.add_argument("--layers", type=int, default=8, help="layers of a random image (8)")
    parser.add_argument("--wan", type=rate, default="50M", help="WAN, bit/s (50M)")
    parser.add_argument("--repeat", type=int, default=1, help="how often (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def run(options: argparse.Namespace) -> int:
    """Raises TestbedError."""
    check_writable(options.json)
    image = image_of(options.size, options.layers)
    with sensible_site():
        spec = SiteSpec(
            options.nodes, options.wan, disk_bytes=image.blob_bytes * _COPIES * (options.nodes + 3)
        )
    runs, loads = [], []
    with Testbed(spec) as bed:
        bed.start_origin()
        ref = bed.push(image)
        for _ in range(options.repeat):
            floor = measure_floor(bed, image)
            fetch = _update(bed, ref, Scenario(image), floor)
            watch = LoadWatch(background_share(1.0))
            unpack_s = _unpack_s(bed, ref)
            unpack = watch.finish()
            pull = _update(bed, ref, Scenario(image, client="pull"), floor)
            runs.append(
                {
                    "pull_s": pull.site_s,
                    "fetch_s": fetch.site_s,
                    "unpack_s": unpack_s,
                    "ratio": pull.site_s / (fetch.site_s + unpack_s),
                    "limit_s": floor.seconds,
                }
            )
            loads += [load for load in (fetch.load, unpack, pull.load) if load is not None]
    return Outcome("unpack", scenario_of(image, options.nodes, options.wan), _LABELS, runs, loads).finish(
        options.json
    )


def _update(bed: Testbed, ref: str, scenario: Scenario, floor: Floor) -> SystemResult:
    result = measure_system(bed, ref, scenario, "p2pd", floor)
    if not result.verified:
        raise TestbedError(f"the {scenario.client} failed: {' | '.join(result.errors[:2])}")
    return result


def _unpack_s(bed: Testbed, ref: str) -> float:
    """Pull where every blob is held: what is left is to resolve the tag and to unpack."""
    pending = [node.prepare_fetch(ref, "pull") for node in bed.nodes]
    time.sleep(0.5)  # each is at the gate
    for one in pending:
        one.go()
    with ThreadPoolExecutor(len(pending)) as pool:
        outcomes: list[FetchOutcome] = list(pool.map(lambda one: one.wait(_TIMEOUT_S), pending))
    if failed := [outcome for outcome in outcomes if outcome.code]:
        raise TestbedError(f"unpacking failed: ctr ended with {failed[0].code}: {failed[0].message}")
    return max(outcome.seconds for outcome in outcomes)
