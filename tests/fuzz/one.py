"""One target under libFuzzer, whose arguments follow the target's name.

Instrumented are the readers and what they read with.
"""

from __future__ import annotations

import logging
import sys

import atheris
import structlog

with atheris.instrument_imports(include=["p2pd", "seeder", "tomllib", "email", "urllib"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
