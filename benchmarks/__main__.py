"""`python -m benchmarks COMMAND …`"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from benchmarks import bars, demo, large, matrix, plots, readme, simulate, twins, update
from benchmarks.faults import command as faults
from benchmarks.micro import bare, held, hit, idle, unpack
from benchmarks.soak import command as soak
from benchmarks.testbed import TestbedError

# Each module has add_arguments(parser) and run(options), which answers the exit code.
COMMANDS = {
    "demo": (demo, "update a site as today and with p2pd, and compare"),
    "update": (update, "the same with every choice open: arrival, repetitions, systems"),
    "matrix": (matrix, "every row that a bar is about, then bars and plots (make bench)"),
    "simulate": (simulate, "sites of a thousand nodes and a thousand sites, in virtual time"),
    "faults": (faults, "break a site in every way, and see what holds"),
    "twins": (twins, "rows of faults in virtual time, a thousand seeds each"),
    "soak": (soak, "use and break a site at random for minutes, and see what holds"),
    "bare": (bare, "CPU of a node beside that of a bare libtorrent swarm"),
    "idle": (idle, "CPU and memory of a node that does nothing, and its start"),
    "hit": (hit, "how fast a node serves what it holds"),
    "held": (held, "start and memory of a node that holds many blobs"),
    "unpack": (unpack, "a pull against fetching alone and unpacking alone"),
    "large": (large, "one layer of 5 GiB: time and memory (long)"),
    "bars": (bars, "what was promised beside what was measured"),
    "plots": (plots, "draw what was measured, into docs/bench and the README"),
    "readme": (readme, "write results of the demo into the README"),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, said) in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=said))
    return parser


def main() -> int:
    options = make_parser().parse_args()
    run: Callable[[argparse.Namespace], int] = COMMANDS[options.command][0].run
    try:
        return run(options)
    except TestbedError as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{options.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
