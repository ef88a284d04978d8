"""The `p2pd-seeder` command.

Exit status: 0 done, 1 our own fault (disk, ports), 2 a mistake in the call or the configuration.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from p2pd import __version__
from p2pd.app.cli import explain, load_config, run_until_done
from p2pd.app.logs import configure_logging
from p2pd.model.errors import StoreError
from seeder.config import SeederConfig

__all__ = ["main"]

DEFAULT_CONFIG = "/etc/p2pd/seeder.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = _parser().parse_args(arguments)
    return explain("p2pd-seeder", lambda: options.work(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="p2pd-seeder",
        description="Pull from origin registries once, and hand blobs and swarm metadata to edge sites.",
    )
    parser.add_argument("--version", action="version", version=f"p2pd-seeder {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run the seeder", description="Run the seeder.")
    run.set_defaults(work=_run)
    usage = commands.add_parser(
        "usage",
        help="show which blobs were served",
        description="Show every blob ever served, the latest used first. Safe while the seeder runs.",
    )
    usage.set_defaults(work=_usage)
    for command in (run, usage):
        command.add_argument(
            "--config",
            metavar="FILE",
            help=f"configuration in TOML (default: {DEFAULT_CONFIG} if it is there; every key is optional)",
        )
    return parser


def _run(options: argparse.Namespace) -> None:
    config = load_config(options.config, DEFAULT_CONFIG, SeederConfig)
    configure_logging(config.log.level, config.log.format)
    from seeder.service import run_seeder

    run_until_done(run_seeder, config)


def _usage(options: argparse.Namespace) -> None:
    config = load_config(options.config, DEFAULT_CONFIG, SeederConfig)
    from seeder.service import usage_path
    from seeder.usage import read_usage

    path = usage_path(config)
    try:
        rows = read_usage(path)
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    print(f"{'last used (UTC)':<20} {'answers':>8} {'served':>16} {'size':>14}  digest, last repository")
    for row in rows:
        used = datetime.fromtimestamp(row.last_used, UTC).strftime("%Y-%m-%d %H:%M:%S")
        print(
            f"{used:<20} {row.pulls:>8} {row.bytes_served:>16} {row.size:>14}  {row.digest} {row.repository}"
        )


if __name__ == "__main__":
    sys.exit(main())
