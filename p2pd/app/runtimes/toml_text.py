"""Finding and changing single lines of a TOML file, so that every other byte stays.

Where a thing stands is told by its looks; whoever edits parses the outcome, and so notices where
the looks deceived (inline tables, dotted keys, text over several lines).
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

from p2pd.model.errors import ConfigError

__all__ = ["find_key", "find_table", "header_of", "quoted", "read_toml"]

_PART = re.compile(r"\s*(?:\"((?:[^\"\\]|\\.)*)\"|'([^']*)'|([A-Za-z0-9_-]+))\s*(\.|$)")


def read_toml(text: str, path: str) -> dict[str, Any]:
    """Raises ConfigError that names the file."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{path} is not valid TOML: nested too deeply; mend it first") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}; mend it first") from error


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def header_of(line: str) -> tuple[str, ...] | None:
    """The parts of a `[table.header]` line; None for any other line, `[[arrays]]` too."""
    match = re.match(r"\s*\[([^\[].*)\]\s*(?:#.*)?$", line)
    if match is None:
        return None
    rest, parts = match[1], list[str]()
    while rest:
        part = _PART.match(rest)
        if part is None:
            return None
        parts.append(next(group for group in part.groups()[:3] if group is not None))
        rest = rest[part.end() :]
    return tuple(parts)


def find_table(lines: list[str], path: tuple[str, ...]) -> int | None:
    return next((number for number, line in enumerate(lines) if header_of(line) == path), None)


def find_key(lines: list[str], table: int, key: str) -> int | None:
    """The line of `key = …` in the table whose header is line `table`."""
    for number in range(table + 1, len(lines)):
        if re.match(r"\s*\[", lines[number]):
            return None
        if re.match(rf"\s*{re.escape(key)}\s*=", lines[number]):
            return number
    return None
