"""`idle`: what a node costs while nothing is pulled, and how soon it is there after its start."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.machine import LoadWatch, background_share
from benchmarks.micro.daemon import MIB, start_timed, usage_of
from benchmarks.outcome import Outcome, check_writable
from benchmarks.testbed import SiteSpec, Testbed

__all__ = ["add_arguments", "run"]

_SETTLE_S = 5.0
_LABELS = {
    "ready_s": "exec to ready, s",
    "rss_mib": "resident (VmRSS, mapped files included), MiB",
    "anon_mib": "of it the process's own (RssAnon), MiB",
    "peak_rss_mib": "most since its start (VmHWM), MiB",
    "cpu_percent": "CPU, % of one core",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Start p2pd on the nodes of a site, one after the other, with a seeder in reach; wait until they\n"
        "know each other, then watch them do nothing. Figures are from /proc of the p2pd process itself, of\n"
        "the worst node. 'Ready' is the first answer of the mirror, looked for every 20 ms."
    )
    parser.add_argument("--nodes", type=int, default=2, help="nodes of the site (2)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to watch (30)")
    parser.add_argument("--repeat", type=int, default=3, help="how often (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def run(options: argparse.Namespace) -> int:
    """Raises TestbedError."""
    check_writable(options.json)
    runs, loads = [], []
    with Testbed(SiteSpec(nodes=options.nodes)) as bed:
        bed.start_seeder()
        for _ in range(options.repeat):
            for node in bed.nodes:
                node.reset()
            background = background_share(1.0)
            ready_s = max(start_timed(node) for node in bed.nodes)
            time.sleep(_SETTLE_S)
            watch = LoadWatch(background)
            before, begun = [usage_of(node).cpu_s for node in bed.nodes], time.monotonic()
            time.sleep(options.seconds)
            elapsed, after = time.monotonic() - begun, [usage_of(node) for node in bed.nodes]
            loads.append(watch.finish())
            spent = max(used.cpu_s - earlier for used, earlier in zip(after, before, strict=True))
            runs.append(
                {
                    "ready_s": ready_s,
                    "rss_mib": max(used.rss for used in after) / MIB,
                    "anon_mib": max(used.anon for used in after) / MIB,
                    "peak_rss_mib": max(used.peak_rss for used in after) / MIB,
                    "cpu_percent": 100 * spent / elapsed,
                }
            )
    scenario = {"nodes": options.nodes, "seconds": options.seconds}
    return Outcome("idle", scenario, _LABELS, runs, loads).finish(options.json)
