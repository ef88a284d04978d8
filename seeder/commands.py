"""The commands of `p2pd-seeder`, on the same helpers as those of `p2pd`."""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from p2pd import __version__
from p2pd.app.commands.asking import client
from p2pd.app.commands.config import config_group
from p2pd.app.commands.lists import show_blobs, show_images
from p2pd.app.commands.output import (
    EXIT_CODES,
    Json,
    age,
    new_app,
    plain,
    show,
    show_json,
    show_table,
    size,
)
from p2pd.app.commands.status import warnings
from p2pd.app.commands.store import DryRun, collect
from p2pd.app.launch import RunCall, load_config
from p2pd.io.admin_client import AdminClient
from p2pd.model.errors import StoreError
from seeder import cli
from seeder.config import SeederConfig
from seeder.usage import read_usage

__all__ = ["make_app"]

Socket = Annotated[
    Path | None,
    typer.Option(
        "--socket",
        envvar="P2PD_SEEDER_SOCKET",
        metavar="PATH",
        help=f"The seeder's admin socket. Default: [admin] socket of {cli.DEFAULT_CONFIG}.",
    ),
]

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
    app.command("status")(_status)
    app.command("images")(_images)
    app.command("blobs")(_blobs)
    app.command("sites")(_sites)
    app.command("usage")(_usage)
    app.command("gc")(_gc)
    app.add_typer(config_group(cli.DEFAULT_CONFIG, SeederConfig), name="config")
    return app


def _run(config: Config = None) -> None:
    """Run the seeder in the foreground, until SIGTERM. It logs to stderr."""
    cli.run(RunCall(config))


def _client(socket: Path | None) -> AdminClient:
    return client(socket, "p2pd-seeder", cli.DEFAULT_CONFIG, SeederConfig)


def _status(as_json: Json = False, socket: Socket = None) -> None:
    """Show the seeder at a glance: content, sites served, last warnings."""
    status = _client(socket).get("/v1/status")
    if as_json:
        show_json(status)
        return
    now = time.time()
    lines = [
        f"p2pd-seeder {status['version']}  listen {status['listen']}  up {age(now - status['started_at'])}",
        f"held {status['blobs']} blobs, {size(status['blob_bytes'])}  on their way {status['transfers']}",
        f"served {size(status['served'])} to {status['sites']} site{'' if status['sites'] == 1 else 's'}",
        f"pulls from {', '.join(status['upstreams']) or 'nowhere: no upstream is configured'}",
    ]
    show(Group(*(Text(plain(line)) for line in lines), *warnings(status, now)))


def _images(as_json: Json = False, socket: Socket = None) -> None:
    """List images, and how much of each is held.

    An image is listed from the first time that a site asked for its tag.
    """
    show_images(_client(socket).get("/v1/images")["images"], as_json)


def _blobs(as_json: Json = False, socket: Socket = None) -> None:
    """List held content, the largest first."""
    show_blobs(_client(socket).get("/v1/blobs")["blobs"], as_json)


def _sites(as_json: Json = False, socket: Socket = None) -> None:
    """List the sites that were served, the latest first.

    A node tells its site with each request; the line without a name counts clients that do not.
    """
    sites = _client(socket).get("/v1/sites")["sites"]
    if as_json:
        show_json(sites)
        return
    rows = [(each["site"], _utc(each["last_used"]), each["answers"], size(each["bytes"])) for each in sites]
    show_table(("SITE", "LAST SERVED (UTC)", "ANSWERS>", "SERVED>"), rows, "no site was served yet")


def _gc(dry_run: DryRun = False, as_json: Json = False, socket: Socket = None) -> None:
    """Bring the store within the limits of [store], now.

    The seeder does this by itself: every hour, within a minute when the disk fills, and before transfers.
    What goes is pulled from its registry again when asked for. Ends with status 1 when the limits cannot
    be met.
    """
    collect(_client(socket), dry_run, as_json)


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


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
                _utc(row.last_used),
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
