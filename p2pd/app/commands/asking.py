"""Finding the node's daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from p2pd.app.cli import DEFAULT_CONFIG
from p2pd.app.config import AdminSection, NodeConfig
from p2pd.app.launch import load_config
from p2pd.io.admin_client import AdminClient
from p2pd.model.errors import ConfigError, UserMistake

__all__ = ["Socket", "node"]

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
    """A client of the daemon at this socket, else at the configured one."""
    return AdminClient(socket or configured(), "p2pd")


def configured() -> Path:
    try:
        path = load_config(None, DEFAULT_CONFIG, NodeConfig).admin.socket
    except (ConfigError, OSError):  # not for this user's eyes, or being edited: the usual place will do
        path = AdminSection().socket
    if not path:
        raise UserMistake(f'the admin API is off: [admin] socket is "" in {DEFAULT_CONFIG}')
    return Path(path)
