"""podman, CRI-O, skopeo and buildah: one drop-in of registries.conf that they all read.

These clients do not say which registry they mean, so the mirror's location carries it as the first
path component. A later file with the same prefix replaces an earlier one wholly
(containers-registries.conf.d(5)): where others configure a registry, p2pd stays out of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from p2pd.app.runtimes.draft import Draft, Files, Mirror, Plan, Route
from p2pd.app.runtimes.marks import Made, append, strip
from p2pd.app.runtimes.toml_text import quoted, read_toml
from p2pd.model.reference import DOCKER_HUB
from p2pd.model.upstream import UpstreamSpec

__all__ = ["FILE", "install", "remove"]

FILE = "/etc/containers/registries.conf.d/p2pd.conf"

_MAIN = "/etc/containers/registries.conf"
_DROP_INS = "/etc/containers/registries.conf.d"
_RELOADS = {"crio": ("systemctl", "reload", "crio")}


def install(files: Files, mirror: Mirror, runtime: str) -> Plan:
    """What leads these clients' pulls to the mirror. Raises ConfigError for a file that cannot be read."""
    draft, plan = Draft(files), Plan()
    _strip(draft)
    theirs = list(_registries(draft))
    block: list[str] = []
    for spec in mirror.upstreams:
        name = spec.alias or spec.registry
        location = f"{mirror.host}/{name}"
        others = [(path, table) for path, table in theirs if _prefix(table) == spec.registry]
        if any(_leads_to(table, location) for _, table in others):
            plan.routes.append(Route(spec.registry, others[-1][0], "written by others"))
        elif others:
            plan.refusals.append(
                f"{others[-1][0]} configures {spec.registry} already, and p2pd.conf would replace that: "
                f"put a [[registry.mirror]] with location = {quoted(location)} and insecure = true "
                "into it yourself"
            )
        elif ":" in name:
            plan.notes.append(
                f"{spec.registry} is left out: its port cannot stand in a path; "
                "give it an alias in [upstreams]"
            )
        else:
            block += ([""] if block else []) + _registry(spec, location)
            plan.routes.append(Route(spec.registry, FILE, "own file"))
    if block:
        text = draft.read(FILE)
        made = Made(True, draft.missing_dirs(FILE)) if text is None else Made()
        draft.write(FILE, append(text or "", block, made=made), keep=True)
    plan.notes.append("podman, CRI-O, skopeo and buildah all read this file")
    return _finish(draft, plan, runtime)


def remove(files: Files, runtime: str) -> Plan:
    """What takes the mirror out again. Raises ConfigError for a file that cannot be read."""
    draft = Draft(files)
    _strip(draft)
    return _finish(draft, Plan(), runtime)


def _finish(draft: Draft, plan: Plan, runtime: str) -> Plan:
    plan.changes, plan.removed_dirs = draft.changes(), draft.removed_dirs()
    if plan.changes:
        plan.reload = _RELOADS.get(runtime, ())
    return plan


def _strip(draft: Draft) -> None:
    text = draft.read(FILE)
    if text is None:
        return
    rest, made = strip(text, FILE)
    if made is not None:
        is_ours = made.file and not rest.strip()
        draft.write(FILE, None if is_ours else rest)
        if is_ours:
            draft.remove_empty_dirs([(FILE, made.dirs)])


def _registry(spec: UpstreamSpec, location: str) -> list[str]:
    host = urlsplit(spec.url).netloc
    lines = [
        "[[registry]]",
        f"prefix = {quoted(spec.registry)}",
        f"location = {quoted(spec.registry if spec.registry == DOCKER_HUB else host)}",
    ]
    if spec.url.startswith("http://"):
        lines.append("insecure = true")
    return [*lines, "", "[[registry.mirror]]", f"location = {quoted(location)}", "insecure = true"]


def _registries(draft: Draft) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every [[registry]] that others wrote, with its file, in the order of reading."""
    drop_ins = [f"{_DROP_INS}/{name}" for name in draft.entries(_DROP_INS) or () if name.endswith(".conf")]
    for path in [_MAIN, *drop_ins]:
        text = draft.read(path)
        document = read_toml(text, path) if text is not None else {}
        tables = document.get("registry", [])
        for table in tables if isinstance(tables, list) else []:
            if isinstance(table, dict):
                yield path, table


def _prefix(table: dict[str, Any]) -> object:
    return table.get("prefix") or table.get("location")


def _leads_to(table: dict[str, Any], location: str) -> bool:
    mirrors = table.get("mirror", [])
    first = mirrors[0] if isinstance(mirrors, list) and mirrors else {}
    return isinstance(first, dict) and first.get("location") == location
