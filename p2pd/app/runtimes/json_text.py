"""Changing one list of a JSON object so that every other byte stays, and undoing that."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from p2pd.model.errors import ConfigError

__all__ = ["Member", "members", "read_object"]

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Member:
    """One `"name": value`; `start` and `end` are where the value stands in the text."""

    name: str
    value: Any
    start: int
    end: int


def read_object(text: str, path: str) -> dict[str, Any]:
    """Raises ConfigError that names the file."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}; mend it first") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is not a JSON object; mend it first")
    return found


def members(text: str) -> list[Member]:
    """The members of the object that a text, already known to be valid JSON, is."""
    found = []
    at = _skip(text, text.index("{") + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        value, end = _DECODER.raw_decode(text, start)
        found.append(Member(name, value, start, end))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
