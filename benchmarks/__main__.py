"""`python -m benchmarks COMMAND …`"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from benchmarks import demo, matrix, readme, update
from benchmarks.faults import command as faults
from benchmarks.testbed import TestbedError

# Each module has add_arguments(parser) and run(options), which answers the exit code.
COMMANDS = {
    "demo": (demo, "update a site as today and with p2pd, and compare"),
    "update": (update, "the same with every choice open: arrival, repetitions, systems"),
    "matrix": (matrix, "the same over several sizes of the site"),
    "faults": (faults, "break a site in every way, and see what holds"),
    "readme": (readme, "write results of the demo into the README"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, said) in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=said))
    options = parser.parse_args()
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
