"""What can be configured, told to people: reference, commented default file, values and their sources.

All of it is made from the configuration classes (`p2pd.app.settings`), so it cannot drift from them.
"""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from p2pd.app.settings import AboutKey, AboutSection, AboutTable, about

__all__ = [
    "KeyReference",
    "SectionReference",
    "commented_defaults",
    "page",
    "reference",
    "toml_key",
    "toml_value",
]

_WIDTH = 100
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclasses.dataclass(frozen=True, slots=True)
class KeyReference:
    """One key: `allowed` is a phrase, `default` is TOML, None where the key must be written."""

    name: str
    allowed: str
    default: str | None
    meaning: str


@dataclasses.dataclass(frozen=True, slots=True)
class SectionReference:
    """One table. `entries` are the named tables that hold by default, of a table of such; else None."""

    name: str
    meaning: str
    keys: tuple[KeyReference, ...]
    entries: Mapping[str, Mapping[str, object]] | None = None

    @property
    def header(self) -> str:
        """The table as TOML writes it, without brackets."""
        return self.name if self.entries is None else self.name.partition(".")[0]


def reference(cls: type[Any]) -> tuple[SectionReference, ...]:
    """Every section and key of a configuration class, in order."""
    found = []
    for field in dataclasses.fields(cls):
        what = about(field)
        if isinstance(what, AboutSection):
            found.append(SectionReference(field.name, what.meaning, tuple(_keys(what.cls))))
        elif isinstance(what, AboutTable):
            name = f'{field.name}."{what.name}"'
            keys = tuple(_keys(what.entry, what.required))
            found.append(SectionReference(name, what.meaning, keys, what.defaults))
    return tuple(found)


def _keys(cls: type[Any], required: tuple[str, ...] = ()) -> Iterator[KeyReference]:
    for field in dataclasses.fields(cls):
        what = about(field)
        if isinstance(what, AboutKey):
            default = None if field.name in required else toml_value(what.default)
            yield KeyReference(field.name, what.kind.words, default, what.meaning)


def commented_defaults(cls: type[Any], path: str) -> str:
    """A whole configuration file in which every key stands, commented out, at its default.

    `path` is where the file belongs; it is named in the first line. Taking the `#` off any key
    that is not a table's changes nothing.
    """
    lines = [f"# {path}: every key, with its default. Take the # off a line to change it."]
    for each in reference(cls):
        lines.append("")
        lines += _comment(each.meaning)
        if each.entries is None:
            lines.append(f"[{each.name}]")
            for key in each.keys:
                lines += ["", *_comment(key.meaning), f"#{key.name} = {key.default}"]
        else:
            lines += _entries(each)
    return "\n".join(lines) + "\n"


def page(title: str, intro: str, programs: Iterable[tuple[str, str, type[Any]]]) -> str:
    """The reference of several programs as Markdown; each is its heading, its file's path, its class."""
    lines = [f"# {title}", "", intro]
    for heading, path, cls in programs:
        lines += ["", f"## {heading}: `{path}`"]
        for each in reference(cls):
            lines += ["", f"### [{each.name}]", "", each.meaning, ""]
            lines += ["| key | allowed | default | meaning |", "|---|---|---|---|"]
            for key in each.keys:
                default = "required" if key.default is None else f"`{key.default}`"
                lines.append(f"| `{key.name}` | {_cell(key.allowed)} | {default} | {_cell(key.meaning)} |")
        lines += ["", "As a file:", "", "```toml", commented_defaults(cls, path).rstrip("\n"), "```"]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _entries(each: SectionReference) -> Iterator[str]:
    """The named tables: the first with all its keys, the others with what differs from the defaults."""
    for number, (name, values) in enumerate((each.entries or {}).items()):
        if number:
            yield "#"
        yield f"#[{each.header}.{toml_key(name)}]"
        for key in each.keys:
            if not number:
                yield "#"
                yield from _comment(key.meaning)
            if key.name in values:
                yield f"#{key.name} = {toml_value(values[key.name])}"
            elif not number:
                yield f"#{key.name} = {key.default}"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False)]


def toml_key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def toml_value(value: object) -> str:
    """A value as TOML has it, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_key(name)} = {toml_value(each)}" for name, each in value.items()) + "}"
    return str(value)


def _quoted(text: str) -> str:
    # JSON's text is TOML's but for DEL, which JSON lets stand.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
