"""`python -m benchmarks faults`: play the rows, print the table, tell by the exit code."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from benchmarks.faults import crowds, disks, links, nodes, origins, peers
from benchmarks.faults.row import HEAD, Limits, Row, Seen, document, judge, table
from benchmarks.faults.stage import measure_baseline, open_stage, play
from benchmarks.sizes import parse_bytes, parse_rate
from benchmarks.testbed import TestbedError

__all__ = ["ROWS", "add_arguments", "run"]

ROWS: list[Row] = [*nodes.ROWS, *links.ROWS, *origins.ROWS, *peers.ROWS, *disks.ROWS, *crowds.ROWS]

_NO_FAULT = Row("no-fault", "none: what extra_s is over", "", lambda _stage: None, Limits(1.10))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", metavar="NAME", action="append", help="play this row (may be repeated)")
    parser.add_argument("--list", action="store_true", help="say what the rows are, and play none")
    parser.add_argument("--nodes", type=int, default=4, help="nodes of the site (4)")
    parser.add_argument("--image", type=parse_bytes, default=40_000_000, help="size of the image (40 MB)")
    parser.add_argument("--wan", type=parse_rate, default=25_000_000, help="WAN, bit/s (25M)")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the daemons' logs here, by row")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the results here")


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 when every promise is kept. Raises TestbedError."""
    rows = _chosen(options.only)
    if options.list:
        for row in rows:
            print(f"{row.name:20}{row.fault}: {row.promise}")
        return 0
    results: list[dict[str, object]] = []
    broken = 0
    print(HEAD, flush=True)
    with open_stage(options.nodes, options.image, options.wan) as stage:
        for row in [_NO_FAULT, *rows]:
            begun = time.monotonic()
            seen: Seen = measure_baseline(stage) if row is _NO_FAULT else play(stage, row)
            if options.logs is not None:
                stage.bed.keep_logs(options.logs / row.name)
            broken += bool(judge(row.limits, seen))
            print(table(row, seen), flush=True)
            results.append(document(row, seen, time.monotonic() - begun))
            if options.json is not None:  # after each row: an interrupted run has what it got
                _write(options, stage.baseline_s, results)
    print(f"{len(rows) + 1 - broken} of {len(rows) + 1} rows hold", file=sys.stderr)
    return 1 if broken else 0


def _chosen(names: list[str] | None) -> list[Row]:
    known = {row.name: row for row in ROWS}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise TestbedError(f"no row is called {unknown[0]}: see --list")
    return [known[name] for name in names] if names else ROWS


def _write(options: argparse.Namespace, baseline_s: float | None, results: list[dict[str, object]]) -> None:
    scenario = {"nodes": options.nodes, "image_bytes": options.image, "wan_bit_s": options.wan}
    text = {"scenario": scenario, "baseline_s": baseline_s, "load": os.getloadavg()[0], "rows": results}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(text, indent=1) + "\n")
