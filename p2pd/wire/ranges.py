"""The `Range` header of one representation, and its answer's `Content-Range`.

Source: RFC 9110 §14. A server may ignore a Range it does not like (§14.2): malformed headers, other
units and several ranges at once are ignored, which means the whole representation with 200. Only a
well-formed range that lies wholly past the end is refused (416).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from p2pd.model.errors import InvalidReference

__all__ = ["ByteRange", "RangeNotSatisfiable", "parse_range", "unsatisfied_range"]

_BYTES = re.compile(r"bytes=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*", re.ASCII | re.IGNORECASE)
_HUGE_DIGITS = 30


class RangeNotSatisfiable(InvalidReference):
    """The range begins at or past the end of the representation (HTTP 416)."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes [start, stop) of a representation of `size` bytes; never empty."""

    start: int
    stop: int
    size: int

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


def unsatisfied_range(size: int) -> str:
    """`Content-Range` of a 416."""
    return f"bytes */{size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The range asked for, clipped to `size`; None where the whole representation is the answer.

    Raises RangeNotSatisfiable. An empty representation has no range that could be described: the
    header is ignored there, for some clients put `bytes=0-` on every request.
    """
    match = _BYTES.fullmatch(header) if header is not None else None
    if match is None or size == 0:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        length = _number(suffix)
        if length == 0:
            raise RangeNotSatisfiable("range asks for the last 0 bytes")
        return ByteRange(max(size - length, 0), size, size)
    start = _number(first)
    stop = _number(last) + 1 if last else size
    if stop <= start and last:
        return None
    if start >= size:
        raise RangeNotSatisfiable(f"range begins at byte {first[:_HUGE_DIGITS]}, the content has {size}")
    return ByteRange(start, min(stop, size), size)


def _number(digits: str) -> int:
    # int() is quadratic, and refuses more than 4300 digits; past any real size they are all alike.
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _HUGE_DIGITS else 10**_HUGE_DIGITS
