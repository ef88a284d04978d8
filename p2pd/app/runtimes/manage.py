"""One way to all runtimes: plan by name, carry out, or put back what was begun."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from p2pd.app.config import NodeConfig
from p2pd.app.runtimes import containerd, containers, docker
from p2pd.app.runtimes.draft import Change, Files, Mirror, Plan
from p2pd.app.runtimes.marks import lines_of
from p2pd.model.errors import P2pdError

__all__ = [
    "RUNTIMES",
    "Runtime",
    "WritableFiles",
    "apply",
    "diff",
    "mirror_of",
    "plan_install",
    "plan_remove",
]


class WritableFiles(Files, Protocol):
    """See `p2pd.io.system_files.SystemFiles`."""

    def replace(self, path: str, data: bytes | None, *, keep: bool = False) -> None: ...

    def remove_dirs(self, paths: Iterable[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """`program` on the PATH, or `directory`, tells that it is installed."""

    name: str
    program: str
    directory: str


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("containerd", "containerd", "/etc/containerd"),
        Runtime("docker", "dockerd", "/etc/docker"),
        Runtime("podman", "podman", "/etc/containers"),
        Runtime("crio", "crio", "/etc/crio"),
    )
}


def mirror_of(config: NodeConfig) -> Mirror:
    return Mirror(config.mirror.listen, config.upstreams, config.mirror.default_registry)


def plan_install(name: str, files: Files, mirror: Mirror, version: tuple[int, int] | None = None) -> Plan:
    """See the runtime's module. `version` is the runtime's, None where it is not known."""
    if name == "containerd":
        return containerd.install(files, mirror, version)
    if name == "docker":
        return docker.install(files, mirror)
    return containers.install(files, mirror, name)


def plan_remove(name: str, files: Files, mirror: Mirror) -> Plan:
    if name == "containerd":
        return containerd.remove(files)
    if name == "docker":
        return docker.remove(files, mirror)
    return containers.remove(files, name)


def apply(files: WritableFiles, plan: Plan) -> None:
    """Carry a plan out. Raises P2pdError, and then what was already done is put back."""
    done: list[Change] = []
    try:
        for change in plan.changes:
            files.replace(change.path, change.after, keep=change.keep)
            done.append(change)
        files.remove_dirs(plan.removed_dirs)
    except P2pdError:
        for change in reversed(done):
            with contextlib.suppress(P2pdError):
                files.replace(change.path, change.before)
        raise


def diff(change: Change) -> str:
    """The change as a unified diff that `patch -p1` takes."""
    before, after = ((data or b"").decode(errors="replace") for data in (change.before, change.after))
    old = "/dev/null" if change.before is None else f"a{change.path}"
    new = "/dev/null" if change.after is None else f"b{change.path}"
    lines = difflib.unified_diff(lines_of(before), lines_of(after), old, new)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )
