"""The demo: one site, one update, as it is done today and with p2pd. A preset of `update`."""

from __future__ import annotations

import argparse

from benchmarks.update import DEBIAN, Plan, add_site_arguments, conduct

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_site_arguments(parser, nodes=8, wan="100M")
    parser.add_argument("--image", default=DEBIAN, help="'debian', or the size of a random image, e.g. 64M")
    parser.add_argument("--layers", type=int, default=4, help="layers of a random image (4)")


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 when every node of every system holds the right bytes. Raises TestbedError."""
    plan = Plan(
        nodes=options.nodes,
        size=options.image,
        layers=options.layers,
        wan_bit_s=options.wan,
        lan_bit_s=options.lan,
        systems=tuple(options.systems.split(",")),
        seeder=options.seeder,
        client=options.client,
    )
    return conduct(plan, options.json, "--image")
