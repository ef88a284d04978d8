"""`python -m benchmarks demo …`"""

from __future__ import annotations

import argparse
import sys

from benchmarks import demo
from benchmarks.testbed import TestbedError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    demo.add_arguments(commands.add_parser("demo", help="update a site as today and with p2pd, and compare"))
    options = parser.parse_args()
    try:
        return demo.run(options)
    except TestbedError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
