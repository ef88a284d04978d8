"""`python -m benchmarks demo|faults|matrix|readme …`"""

from __future__ import annotations

import argparse
import sys

from benchmarks import demo, matrix, readme
from benchmarks.faults import command as faults
from benchmarks.testbed import TestbedError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    demo.add_arguments(commands.add_parser("demo", help="update a site as today and with p2pd, and compare"))
    readme.add_arguments(commands.add_parser("readme", help="write results of the demo into the README"))
    matrix.add_arguments(commands.add_parser("matrix", help="the same over several sizes of the site"))
    faults.add_arguments(commands.add_parser("faults", help="break a site in every way, and see what holds"))
    options = parser.parse_args()
    run = {"demo": demo.run, "faults": faults.run, "matrix": matrix.run, "readme": readme.run}[
        options.command
    ]
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
