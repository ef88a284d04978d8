"""Finding the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from p2pd.app.cli import DEFAULT_CONFIG
from p2pd.app.config import NodeConfig
from p2pd.app.launch import load_config
from p2pd.io.admin_client import AdminClient
from p2pd.model.errors import ConfigError, UserMistake

__all__ = ["Socket", "client", "node"]

Socket = Annotated[
    Path | None,
    typer.Option(
        "--socket",
        envvar="P2PD_SOCKET",
        metavar="PATH",
        help=f"The daemon's admin socket. Default: [admin] socket of {DEFAULT_CONFIG}.",
    ),
]


def node(socket: Path | None) -> AdminClient:
    """A client of the node's daemon at this socket, else at the configured one."""
    return client(socket, "p2pd", DEFAULT_CONFIG, NodeConfig)


def client(socket: Path | None, service: str, file: str, cls: type[Any]) -> AdminClient:
    """The same for any daemon: `file` is its configuration's path and `cls` its class."""
    if socket is None:
        try:
            configured = load_config(None, file, cls).admin.socket
        except (ConfigError, OSError):  # not for this user's eyes, or being edited: the usual place will do
            configured = cls().admin.socket
        if not configured:
            raise UserMistake(f'the admin API is off: [admin] socket is "" in {file}')
        socket = Path(configured)
    return AdminClient(socket, service)
