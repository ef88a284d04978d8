"""A tree of files with changes that are not yet made, and the plan that comes of them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from p2pd.model.address import Address
from p2pd.model.errors import ConfigError
from p2pd.model.upstream import UpstreamSpec

__all__ = ["Change", "Draft", "Files", "Mirror", "Plan", "Route"]


class Files(Protocol):
    """Absolute paths, as the runtime sees them. Both raise ConfigError where reading is not possible."""

    def read(self, path: str) -> bytes | None:
        """The whole file; None where there is none."""

    def entries(self, path: str) -> Sequence[str] | None:
        """Names in a directory; None where there is no such directory."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """What runtimes are to be told: where the mirror is, and for which registries."""

    listen: Address
    upstreams: tuple[UpstreamSpec, ...]
    default_registry: str = "docker.io"

    @property
    def host(self) -> str:
        """`host:port` for a client on this machine."""
        local = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to
        return str(Address(local.get(self.listen.host, self.listen.host), self.listen.port))

    @property
    def url(self) -> str:
        return f"http://{self.host}"


@dataclass(frozen=True, slots=True)
class Change:
    """`before` and `after` are whole contents; None: no such file. `keep`: `before` is worth a backup."""

    path: str
    before: bytes | None
    after: bytes | None
    keep: bool


@dataclass(frozen=True, slots=True)
class Route:
    """How one registry comes to the mirror: the file that says so, and in which manner."""

    registry: str
    path: str
    how: str


@dataclass(slots=True)
class Plan:
    """What is to be done. Where `refusals` are not empty nothing should be."""

    changes: tuple[Change, ...] = ()
    removed_dirs: tuple[str, ...] = ()
    routes: list[Route] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    reload: tuple[str, ...] = ()
    """The command after which the changes count; empty: they count at once."""


class Draft:
    """Reads what is there, and remembers what is to be written, deleted and removed."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._before: dict[str, bytes | None] = {}
        self._now: dict[str, bytes | None] = {}
        self._keep: set[str] = set()
        self._removed: set[str] = set()

    def read(self, path: str) -> str | None:
        """The text; None where there is none. Raises ConfigError for what is not UTF-8."""
        if path not in self._now:
            self._now[path] = self._before[path] = self._files.read(path)
        data = self._now[path]
        try:
            return None if data is None else data.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text: p2pd leaves it alone") from error

    def write(self, path: str, text: str | None, *, keep: bool = False) -> None:
        """Set or (None) delete a file. `keep`: what was there before is worth a backup."""
        self.read(path)
        self._now[path] = None if text is None else text.encode()
        if keep:
            self._keep.add(path)

    def entries(self, path: str) -> tuple[str, ...] | None:
        """Names in a directory, sorted; None where there is none."""
        found = set(self._files.entries(path) or ())
        is_there = self._files.entries(path) is not None and path not in self._removed
        for each, data in self._now.items():
            if each.startswith(f"{path}/"):
                name = each.removeprefix(f"{path}/").partition("/")[0]
                if data is not None:
                    is_there = True
                    found.add(name)
                elif each == f"{path}/{name}":
                    found.discard(name)
        found -= {name for name in found if self._is_gone(f"{path}/{name}")}
        return tuple(sorted(found)) if is_there else None

    def _is_gone(self, path: str) -> bool:
        return path in self._removed and self.entries(path) is None

    def missing_dirs(self, path: str) -> int:
        """How many directories would have to be made for a file."""
        count, parent = 0, posixpath.dirname(path)
        while parent != "/" and self.entries(parent) is None:
            count, parent = count + 1, posixpath.dirname(parent)
        return count

    def remove_empty_dirs(self, above: Iterable[tuple[str, int]]) -> None:
        """For each (path, count): remove the `count` directories next above it, as far as they are empty."""
        found = set[str]()
        for path, count in above:
            for _ in range(count):
                path = posixpath.dirname(path)
                found.add(path)
        for directory in sorted(found, key=len, reverse=True):
            if self.entries(directory) == ():
                self._removed.add(directory)

    def changes(self) -> tuple[Change, ...]:
        found = []
        for path, now in sorted(self._now.items()):
            before = self._before[path]
            if now != before:
                found.append(Change(path, before, now, before is not None and path in self._keep))
        return tuple(found)

    def removed_dirs(self) -> tuple[str, ...]:
        """Innermost first."""
        return tuple(sorted((path for path in self._removed if self._is_gone(path)), reverse=True))
