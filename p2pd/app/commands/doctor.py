"""`p2pd doctor`: what is wrong with this node, and the command that mends it."""

from __future__ import annotations

import dataclasses
import shlex
from contextlib import aclosing
from typing import Annotated

import trio
import typer

from p2pd.app import cli
from p2pd.app.commands.output import Json, console, fail, show_json
from p2pd.app.config import NodeConfig
from p2pd.app.doctor.examine import examine
from p2pd.app.doctor.finding import Finding
from p2pd.app.launch import load_config
from p2pd.io.programs import is_on_path
from p2pd.io.system_files import SystemFiles

__all__ = ["register"]

_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}

Config = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help=f"Default: {cli.DEFAULT_CONFIG} if it is there."),
]
Image = Annotated[
    str | None,
    typer.Option(
        metavar="REF", help="Image to pull a little of, as REGISTRY/NAME:TAG. Default: a small public one."
    ),
]


def register(app: typer.Typer) -> None:
    app.command("doctor")(_doctor)


def _doctor(config: Config = None, image: Image = None, as_json: Json = False) -> None:
    """Find out what is wrong with this node: each finding with the command that mends it.

    Looks at the daemon, ports, multicast (by really sending), peers, seeders, registries, clock, disk (writes
    32 MiB and deletes them), the store's limits, the runtimes' configuration, and pulls a manifest and a
    small blob through the mirror. Works without the daemon and without root, and says what it could not look
    at. Changes nothing. Exit status 1 if anything fails.
    """
    loaded = load_config(config, cli.DEFAULT_CONFIG, NodeConfig)
    option = f" --config {shlex.quote(config)}" if config is not None else ""
    found: list[Finding] = []

    async def look() -> None:
        findings = examine(
            loaded, SystemFiles(), is_on_path, image=image, option=option, file=config or cli.DEFAULT_CONFIG
        )
        async with aclosing(findings):
            async for finding in findings:
                found.append(finding)
                if not as_json:
                    _print(finding)

    trio.run(look)
    failed = sum(finding.level == "fail" for finding in found)
    if as_json:
        show_json({"ok": not failed, "findings": [dataclasses.asdict(finding) for finding in found]})
    else:
        warned = sum(finding.level == "warn" for finding in found)
        print(f"{len(found)} checks: {failed} failed, {warned} to look at")
    if failed:
        raise fail()


def _print(finding: Finding) -> None:
    out = console()
    out.print(f"{finding.level:<5}", style=_STYLE[finding.level], end="")
    out.print(f"{finding.check:<10} {finding.says}", soft_wrap=True)
    if finding.mend is not None:
        out.print(f"{'':<15} -> {finding.mend}", soft_wrap=True)
