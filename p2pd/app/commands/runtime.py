"""`p2pd runtime`: point this node's container runtime at the mirror, and take that back."""

from __future__ import annotations

import dataclasses
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from p2pd.app import cli
from p2pd.app.commands.output import Json, fail, new_group, show_json, show_table
from p2pd.app.config import NodeConfig
from p2pd.app.launch import load_config
from p2pd.app.runtimes.draft import Change, Mirror, Plan
from p2pd.app.runtimes.manage import (
    RUNTIMES,
    Runtime,
    apply,
    diff,
    mirror_of,
    plan_install,
    plan_remove,
)
from p2pd.io.programs import is_on_path, run_program, version_of
from p2pd.io.system_files import SystemFiles
from p2pd.model.errors import ConfigError

__all__ = ["register"]


class _Name(StrEnum):
    containerd = "containerd"
    docker = "docker"
    podman = "podman"
    crio = "crio"


Name = Annotated[_Name, typer.Argument(help="Which runtime. podman is for skopeo and buildah too.")]
Config = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="FILE", help=f"p2pd's TOML configuration. Default: {cli.DEFAULT_CONFIG} if there."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the changes as a diff, and make none.")]
Restart = Annotated[
    bool, typer.Option("--restart", help="Also restart or reload the runtime where that is needed.")
]
Root = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Work below DIR, as in an image that is being built.")
]
Registries = Annotated[
    list[str] | None,
    typer.Option(
        "--registry", metavar="HOST", help="Only this registry; may be repeated. Default: all [upstreams]."
    ),
]


def register(app: typer.Typer) -> None:
    group = new_group("Point this node's container runtime at the mirror, and take that back.")
    group.command()(install)
    group.command()(remove)
    group.command()(show)
    app.add_typer(group, name="runtime")


def install(
    name: Name,
    config: Config = None,
    registry: Registries = None,
    root: Root = None,
    dry_run: DryRun = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Let a runtime pull through p2pd, and from the registry itself where p2pd fails.

    Only what is missing is written, between marks, and what others wrote stays; where that cannot be done
    safely nothing is written, with exit status 1. A file that was there before is kept as FILE.before-p2pd.
    Run it again after a change of [upstreams] or [mirror] listen (of Docker: remove before, install after).
    """
    mirror = _mirror(config, registry)
    runtime, files = RUNTIMES[name], SystemFiles(root or Path("/"))
    if root is None:
        _must_be_there(runtime, files)
    plan = plan_install(name, files, mirror, None if root else version_of(runtime.program))
    _carry_out(runtime, files, plan, dry_run=dry_run, restart=restart, as_json=as_json)


def remove(
    name: Name,
    config: Config = None,
    root: Root = None,
    dry_run: DryRun = False,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Take p2pd out of the runtime's configuration: every file is again as it was, to the byte."""
    files = SystemFiles(root or Path("/"))
    try:
        mirror = _mirror(config, None)
    except ConfigError:
        if name is _Name.docker:
            raise
        mirror = mirror_of(NodeConfig())  # ours is between marks there: a way back needs no configuration
    plan = plan_remove(name, files, mirror)
    _carry_out(RUNTIMES[name], files, plan, dry_run=dry_run, restart=restart, as_json=as_json)


def show(
    name: Annotated[_Name | None, typer.Argument(help="Which runtime. Default: all that are here.")] = None,
    config: Config = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Show how each registry comes to the mirror, and what is missing. Changes nothing."""
    files, mirror = SystemFiles(root or Path("/")), _mirror(config, None)
    chosen = [RUNTIMES[name]] if name else [each for each in RUNTIMES.values() if _is_there(each, files)]
    found = []
    for runtime in chosen:
        version = None if root else version_of(runtime.program)
        plan = plan_install(runtime.name, files, mirror, version)
        found.append((runtime, plan, _state(plan, plan_remove(runtime.name, files, mirror))))
    if as_json:
        show_json([{"state": state, **_data(runtime, plan)} for runtime, plan, state in found])
        return
    rows = [
        [runtime.name, state, route.registry, route.how if state == "installed" else "", route.path]
        for runtime, plan, state in found
        for route in plan.routes
    ]
    show_table(["RUNTIME", "STATE", "REGISTRY", "HOW", "FILE"], rows, "no container runtime was found here")
    for _, plan, _ in found:
        _tell(plan)


def _mirror(config: str | None, only: list[str] | None) -> Mirror:
    mirror = mirror_of(load_config(config, cli.DEFAULT_CONFIG, NodeConfig))
    known = {spec.registry for spec in mirror.upstreams}
    for each in only or ():
        if each not in known:
            raise ConfigError(
                f"{each} is not among [upstreams], which are {', '.join(sorted(known)) or 'none'}"
            )
    if only:
        chosen = tuple(spec for spec in mirror.upstreams if spec.registry in only)
        return dataclasses.replace(mirror, upstreams=chosen)
    return mirror


def _is_there(runtime: Runtime, files: SystemFiles) -> bool:
    return is_on_path(runtime.program) or files.entries(runtime.directory) is not None


def _must_be_there(runtime: Runtime, files: SystemFiles) -> None:
    if not _is_there(runtime, files):
        raise ConfigError(
            f"{runtime.name} is not here: no {runtime.program} on the PATH and no {runtime.directory}; "
            "for another system's files use --root"
        )


def _state(plan: Plan, removal: Plan) -> str:
    if plan.refusals:
        return "refused"
    if not plan.changes:
        return "installed"
    return "out of date" if removal.changes else "not installed"


def _carry_out(
    runtime: Runtime, files: SystemFiles, plan: Plan, *, dry_run: bool, restart: bool, as_json: bool
) -> None:
    if plan.refusals:
        if as_json:
            show_json(_data(runtime, plan))
        else:
            _tell(plan)
        print("p2pd: nothing was written; --registry limits it to the others", file=sys.stderr)
        raise fail()
    if not dry_run:
        apply(files, plan)
    is_restarted = bool(restart and plan.reload and not dry_run)
    if is_restarted:
        run_program(plan.reload)
    if as_json:
        show_json({**_data(runtime, plan), "dry_run": dry_run, "restarted": is_restarted})
        return
    _report(plan, dry_run=dry_run, is_restarted=is_restarted)


def _report(plan: Plan, *, dry_run: bool, is_restarted: bool) -> None:
    for change in plan.changes:
        print(diff(change) if dry_run else f"{_action(change)} {change.path}", end="" if dry_run else "\n")
    if not plan.changes:
        print("nothing to change")
    _tell(plan)
    if plan.reload and not is_restarted:
        print(f"To make it count: {' '.join(plan.reload)}", file=sys.stderr)


def _tell(plan: Plan) -> None:
    for line in plan.refusals:
        print(f"p2pd: {line}", file=sys.stderr)
    for line in plan.notes:
        print(f"note: {line}", file=sys.stderr)


def _action(change: Change) -> str:
    if change.after is None:
        return "deleted"
    return "created" if change.before is None else "changed"


def _data(runtime: Runtime, plan: Plan) -> dict[str, Any]:
    return {
        "runtime": runtime.name,
        "registries": [dataclasses.asdict(route) for route in plan.routes],
        "changes": [
            {"path": change.path, "action": _action(change), "diff": diff(change)} for change in plan.changes
        ],
        "removed_directories": list(plan.removed_dirs),
        "notes": plan.notes,
        "refusals": plan.refusals,
        "restart": " ".join(plan.reload) or None,
    }
