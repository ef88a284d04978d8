"""`WWW-Authenticate` as registries send it.

Source: RFC 9110 §11.6.1 (challenges), RFC 6750 §3 (Bearer), distribution-spec token authentication.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Challenge", "parse_challenges"]

_LIMIT = 8 * 1024
_SEPARATORS = re.compile(r"[ \t,]*")
_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SCHEME = re.compile(_WORD)
_END = r"[ \t]*(?:,|$)"
# Bare values are taken more widely than the RFC's token: real registries forget the quotes of a realm.
_PARAM = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s",=][^\s",]*)){_END}')
_TOKEN68 = re.compile(rf"[A-Za-z0-9\-._~+/]+=*{_END}")
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: `scheme` and parameter names in lower case, values unquoted."""

    scheme: str
    params: dict[str, str]


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Read the values of all WWW-Authenticate headers, in order.

    Never raises: reading a value stops at the first thing that is not a challenge, and what stood
    before it counts.
    """
    found: list[Challenge] = []
    for value in values:
        if len(value) <= _LIMIT:
            _read(value, found)
    return found


def _read(value: str, found: list[Challenge]) -> None:
    position = _skip(value, 0)
    while scheme := _SCHEME.match(value, position):
        params: dict[str, str] = {}
        found.append(Challenge(scheme.group().lower(), params))
        position = scheme.end()
        if position < len(value) and value[position] not in " \t,":
            found.pop()
            return
        position = _skip(value, position)
        first = True
        while True:
            if param := _PARAM.match(value, position):
                name, quoted, bare = param.groups()
                params.setdefault(name.lower(), bare if quoted is None else _ESCAPE.sub(r"\1", quoted))
                position = _skip(value, param.end())
            elif first and (single := _token68(value, position)):
                position = _skip(value, single)
            else:
                break
            first = False


def _token68(value: str, position: int) -> int | None:
    """End of a token68, such as Negotiate sends; a bare word is the next challenge's scheme instead."""
    match = _TOKEN68.match(value, position)
    return match.end() if match and "=" in match.group() else None


def _skip(value: str, position: int) -> int:
    match = _SEPARATORS.match(value, position)
    return match.end() if match else position
