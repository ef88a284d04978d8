"""The commands of `p2pd-seeder`, on the same helpers as those of `p2pd`."""

from __future__ import annotations

import dataclasses
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from p2pd import __version__
from p2pd.app.commands.config import config_group
from p2pd.app.commands.output import EXIT_CODES, Json, new_app, show_json, show_table, size
from p2pd.app.launch import RunCall, load_config
from p2pd.model.errors import StoreError
from seeder import cli
from seeder.config import SeederConfig
from seeder.usage import read_usage

__all__ = ["make_app"]

Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help=f"TOML configuration. Default: {cli.DEFAULT_CONFIG} if it is there; every key is optional.",
    ),
]


def make_app() -> typer.Typer:
    """The whole command line."""
    app = new_app(
        "Pull from origin registries once, and hand blobs and swarm metadata to edge sites.",
        f"p2pd-seeder {__version__}",
        EXIT_CODES,
    )
    app.command("run")(_run)
    app.command("usage")(_usage)
    app.add_typer(config_group(cli.DEFAULT_CONFIG, SeederConfig), name="config")
    return app


def _run(config: Config = None) -> None:
    """Run the seeder in the foreground, until SIGTERM. It logs to stderr."""
    cli.run(RunCall(config))


def _usage(config: Config = None, as_json: Json = False) -> None:
    """Show every blob ever served, the latest used first.

    Reads the bookkeeping in the state directory, whether the seeder runs or not.
    """
    path = Path(load_config(config, cli.DEFAULT_CONFIG, SeederConfig).seeder.state_dir) / "usage.sqlite"
    try:
        rows = read_usage(path)
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}; is the state directory readable?") from error
    if as_json:
        show_json([dataclasses.asdict(row) for row in rows])
        return
    show_table(
        ["LAST USED (UTC)", "ANSWERS>", "SERVED>", "SIZE>", "DIGEST", "LAST REPOSITORY"],
        (
            [
                datetime.fromtimestamp(row.last_used, UTC).strftime("%Y-%m-%d %H:%M:%S"),
                row.pulls,
                size(row.bytes_served),
                size(row.size),
                row.digest,
                row.repository,
            ]
            for row in rows
        ),
        "nothing was served yet",
    )
