"""`make bench`: the demo's measurement over several site sizes, warm and cold; one JSON file each.

A site of 8 wants about 45 ms of CPU for each MB of image (clients included): the default rate is one
that two cores carry, so that the network is measured and not the machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks import demo

__all__ = ["add_arguments", "run"]

_RESULTS = Path(__file__).parent / "results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", default="1,2,4,8", help="site sizes (1,2,4,8)")
    parser.add_argument("--seeders", default="warm,cold", help="states of the seeder (warm,cold)")
    parser.add_argument("--image", default="96M", help="'debian' or a size (96M)")
    parser.add_argument("--wan", default="25M", help="WAN, bit/s (25M)")
    parser.add_argument("--systems", default="p2pd", help="of direct,pull-through,p2pd (p2pd)")
    parser.add_argument("--results", type=Path, default=_RESULTS, help=f"directory ({_RESULTS})")


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 when every run verified its content. Raises TestbedError."""
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    rows, worst = [], 0
    for seeder in options.seeders.split(","):
        for nodes in options.nodes.split(","):
            out = options.results / f"{nodes}-nodes-{seeder}.json"
            words = ["--nodes", nodes, "--seeder", seeder, "--image", options.image, "--wan", options.wan]
            worst |= demo.run(parser.parse_args([*words, "--systems", options.systems, "--json", str(out)]))
            rows.append((seeder, nodes, json.loads(out.read_text())))
    heads = ("seeder", "nodes", "system", "site s", "/ limit", "WAN ratio", "CPU ms/MB")
    print("\n" + " ".join(f"{head:>13}" for head in heads))
    for seeder, nodes, document in rows:
        megabytes = document["scenario"]["image_bytes"] / 1e6
        for result in document["results"]:
            cpu, ratio = result["cpu_s_per_node"], result["site_s"] / document["limit_s"]
            cells = (
                seeder,
                nodes,
                result["system"],
                f"{result['site_s']:.2f}",
                f"{ratio:.3f}",
                f"{result['wan_ratio']:.3f}",
                "-" if cpu is None else f"{cpu * 1000 / megabytes:.1f}",
            )
            print(" ".join(f"{cell:>13}" for cell in cells))
    return worst
