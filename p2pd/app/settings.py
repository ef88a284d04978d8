"""Reading TOML into frozen dataclasses: every key has a default, what is unknown or wrong is refused.

A configuration class is a frozen dataclass whose fields are made by `key` (one value), `section`
(a table, itself such a class) or `table` (a table of named entries, turned into a value as a whole).
Each has a help text for operators; `p2pd.app.reference` makes the reference and the commented
default file of them.
Errors are one line: file, line where it can be told, key, what is wrong, what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from p2pd.app.kinds import Kind, shown
from p2pd.model.errors import ConfigError

__all__ = [
    "AboutKey",
    "AboutSection",
    "AboutTable",
    "Document",
    "Entries",
    "about",
    "key",
    "load",
    "load_document",
    "parse",
    "section",
    "table",
]

T = TypeVar("T")
C = TypeVar("C")

FILE_LIMIT = 1024 * 1024
"""Largest configuration file taken, bytes."""

Entries = Mapping[str, "Reader"]
"""The named entries of a `table`; each Reader checks one of them against a class."""

_ABOUT = "about"


@dataclasses.dataclass(frozen=True, slots=True)
class AboutKey:
    """What a field made by `key` is: `default` as TOML has it."""

    kind: Kind[Any]
    default: object
    meaning: str


@dataclasses.dataclass(frozen=True, slots=True)
class AboutSection:
    cls: type[Any]
    meaning: str


@dataclasses.dataclass(frozen=True, slots=True)
class AboutTable:
    """A table of named entries, each described by the class `entry`.

    `required` are the keys each entry must have; `defaults` the entries that hold when the table is
    not written, as TOML has them. `name` stands for an entry's name in the reference.
    """

    read: Callable[[Entries], Any]
    entry: type[Any]
    name: str
    required: tuple[str, ...]
    defaults: Mapping[str, Mapping[str, object]]
    meaning: str


About = AboutKey | AboutSection | AboutTable


def about(field: dataclasses.Field[Any]) -> About:
    """What a field of a configuration class is."""
    found: About = field.metadata[_ABOUT]
    return found


def key(kind: Kind[T], default: object, meaning: str) -> T:
    """A field with one value. `default` is written as in TOML and read by `kind`, too.

    `meaning` is for operators: sentences without a line break, what it does and when to change it.
    """
    return dataclasses.field(default=kind(default), metadata={_ABOUT: AboutKey(kind, default, meaning)})


def section(cls: type[C], meaning: str) -> C:
    """A field that is a table of its own, described by the class `cls`."""
    return dataclasses.field(default_factory=cls, metadata={_ABOUT: AboutSection(cls, meaning)})


def table(
    read: Callable[[Entries], T],
    default: T,
    *,
    entry: type[Any],
    name: str,
    required: tuple[str, ...],
    defaults: Mapping[str, Mapping[str, object]],
    meaning: str,
) -> T:
    """A field that is a table of named tables. `read` turns all of them into the value.

    It calls each entry's Reader, and may raise ValueError, or `reader.wrong(...)` for one entry.
    The rest is for the reference, see `AboutTable`.
    """
    what = AboutTable(read, entry, name, required, defaults, meaning)
    return dataclasses.field(default=default, metadata={_ABOUT: what})


@dataclasses.dataclass(frozen=True, slots=True)
class _Source:
    name: str
    lines: tuple[str, ...]

    def wrong(self, path: tuple[str, ...], why: str) -> ConfigError:
        line = self.line_of(path)
        place = f"{self.name}, line {line}" if line else self.name
        return ConfigError(f"{place}: {_dotted(path)}: {why}")

    def line_of(self, path: tuple[str, ...]) -> int | None:
        return _line_of(self.lines, path)


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """One table of the file, not yet checked."""

    value: object
    path: tuple[str, ...]
    source: _Source

    def read(self, cls: type[C]) -> C:
        """Check the table against a configuration class; raises ConfigError."""
        return _read(cls, self.value, self.path, self.source)

    def wrong(self, why: str, name: str = "") -> ConfigError:
        """The error for this table, or for its key `name`."""
        return self.source.wrong((*self.path, name) if name else self.path, why)


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """A file that is valid TOML, its keys not yet checked."""

    tree: dict[str, Any]
    source: _Source

    def read(self, cls: type[C]) -> C:
        """Check it against a configuration class; raises ConfigError."""
        return _read(cls, self.tree, (), self.source)


def load(path: Path, cls: type[C]) -> C:
    """Read a configuration file; raises ConfigError."""
    return load_document(path).read(cls)


def load_document(path: Path) -> Document:
    """Read a file without checking its keys; raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise ConfigError(f"{path}: cannot read the configuration: {why or error}") from error
    return _document(data, str(path))


def parse(data: bytes, cls: type[C], name: str = "configuration") -> C:
    """Read a configuration from its bytes; `name` is the file's, for errors. Raises ConfigError."""
    return _document(data, name).read(cls)


def _document(data: bytes, name: str) -> Document:
    if len(data) > FILE_LIMIT:
        raise ConfigError(f"{name}: the configuration is larger than {FILE_LIMIT} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}, line {line}: not UTF-8 text") from error
    try:
        document = tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{name}: not valid TOML: nested too deeply") from error
    except ValueError as error:
        raise ConfigError(f"{name}: not valid TOML: {error}") from error
    return Document(document, _Source(name, tuple(text.splitlines())))


def _read(cls: type[C], value: object, path: tuple[str, ...], source: _Source) -> C:
    if not isinstance(value, dict):
        raise source.wrong(path, f"{shown(value)} is not a table")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in value:
        if name not in fields:
            raise source.wrong((*path, name), _unknown(name, fields, bool(path)))
    found = {name: _field(fields[name], each, (*path, name), source) for name, each in value.items()}
    try:
        return cls(**found)
    except ValueError as error:  # from the class's own __post_init__: keys that do not fit together
        raise source.wrong(path, str(error)) from error


def _field(field: dataclasses.Field[Any], value: object, path: tuple[str, ...], source: _Source) -> object:
    what = about(field)
    try:
        if isinstance(what, AboutKey):
            return what.kind(value)
        if isinstance(what, AboutSection):
            return _read(what.cls, value, path, source)
        if not isinstance(value, dict):
            raise ValueError(f"{shown(value)} is not a table")  # noqa: TRY004 - mapped just below
        return what.read({name: Reader(each, (*path, name), source) for name, each in value.items()})
    except ValueError as error:
        raise source.wrong(path, str(error)) from error


def _unknown(name: str, known: Iterable[str], is_key: bool) -> str:
    near = difflib.get_close_matches(name[:100], list(known), 1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"unknown {'key' if is_key else 'section'}; {hint}"


def _dotted(path: tuple[str, ...]) -> str:
    bare = re.compile(r"[A-Za-z0-9_-]{1,60}")
    shorts = (part if bare.fullmatch(part) else f'"{ascii(part[:60])[1:-1]}"' for part in path)
    return ".".join(shorts) or "configuration"


def _line_of(lines: tuple[str, ...], path: tuple[str, ...]) -> int | None:
    """The line where a key or table stands, found by its looks; None where it is written another way."""
    header: list[str] = []
    best = None
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if match := re.match(r"\[+([^\]]*)\]", stripped):
            header = _parts(match[1])
            if header == list(path):
                return number
        elif "=" in stripped and (full := header + _parts(stripped.partition("=")[0])) == list(
            path[: len(full)]
        ):
            if len(full) == len(path):
                return number
            best = best or number
    return best


def _parts(dotted: str) -> list[str]:
    """Split `a."b.c".d`."""
    return [
        bare or quoted[1:-1] for quoted, bare in re.findall(r"(\"[^\"]*\"|'[^']*')|([A-Za-z0-9_-]+)", dotted)
    ]
