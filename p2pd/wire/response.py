"""Response headers that a downloader has to believe or refuse.

Source, but for p2pd's own: RFC 9110 §8.6 (Content-Length), §10.2.3 (Retry-After), §14.4 (Content-Range).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from p2pd.model.content import Holding

__all__ = ["HOLDING_HEADER", "ContentRange", "content_length", "content_range", "holding", "retry_after"]

HOLDING_HEADER = "P2pd-Blob"
"""Response header of a seeder's answers about a blob: whether it has it whole, or is itself still pulling it.
A seeder that does not know it, or a proxy that drops it, says nothing."""

_DIGITS = re.compile(r"[0-9]{1,18}")
_RANGE = re.compile(r"bytes[ \t]+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Bytes [start, stop) of `size`; never empty."""

    start: int
    stop: int
    size: int


def content_length(value: str | None) -> int | None:
    """Bytes, None when absent or malformed."""
    return int(value) if value is not None and _DIGITS.fullmatch(value) else None


def content_range(value: str | None) -> ContentRange | None:
    """A satisfied byte range of known total size; None when absent, malformed or inconsistent."""
    match = _RANGE.fullmatch(value.strip()) if value else None
    if match is None:
        return None
    first, last, size = (int(group) for group in match.groups())
    return ContentRange(first, last + 1, size) if first <= last < size else None


def holding(value: str | None) -> Holding | None:
    """What a seeder says of a blob; None when it says nothing, or nothing that is known here."""
    try:
        return Holding((value or "").strip().lower())
    except ValueError:
        return None


def retry_after(value: str | None, now: float, cap: float = 3600.0) -> float | None:
    """Seconds to wait, in [0, cap]; `now` in seconds since the epoch. None when absent or malformed."""
    if value is None:
        return None
    value = value.strip()
    if _DIGITS.fullmatch(value):
        return min(float(value), cap)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), cap)
