"""`p2pd run`."""

from __future__ import annotations

from typing import Annotated

import typer

from p2pd.app import cli
from p2pd.app.launch import RunCall

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command("run")(_run)


def _run(
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help=f"TOML configuration. Default: {cli.DEFAULT_CONFIG} if it is there. Every key is optional.",
        ),
    ] = None,
) -> None:
    """Run the node's daemon in the foreground, until SIGTERM.

    Under systemd: systemctl start p2pd. It logs to stderr; point containerd at its mirror
    (default 127.0.0.1:7780) with p2pd runtime install containerd.
    """
    cli.run(RunCall(config))
