"""`large`: one very large layer, for what memory and time do not grow with. A preset of `update`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.sizes import argument, parse_rate
from benchmarks.update import Plan, conduct

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Update a small site with one layer of 5 GiB through p2pd, warm seeder. Takes some twenty minutes\n"
        "and about 50 GB of disk (memory where there is so much), 5 GB of them kept in build/images for the\n"
        "next time. Peak memory is VmHWM of p2pd and seeder, pages of mapped files included."
    )
    rate = argument(parse_rate, "100M (bit/s)")
    parser.add_argument("--nodes", type=int, default=3, help="nodes of the site (3)")
    parser.add_argument("--size", default="5G", help="size of the layer (5G)")
    parser.add_argument("--wan", type=rate, default="100M", help="WAN, bit/s (100M)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")


def run(options: argparse.Namespace) -> int:
    """Raises TestbedError."""
    plan = Plan(nodes=options.nodes, size=options.size, layers=1, wan_bit_s=options.wan, systems=("p2pd",))
    return conduct(plan, options.json, "--size")
