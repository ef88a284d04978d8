"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level", "fail", "ok", "warn"]

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`mend` is the command that mends it, or that shows more; None where there is nothing to do."""

    check: str
    level: Level
    says: str
    mend: str | None = None


def ok(check: str, says: str) -> Finding:
    return Finding(check, "ok", says)


def warn(check: str, says: str, mend: str | None = None) -> Finding:
    return Finding(check, "warn", says, mend)


def fail(check: str, says: str, mend: str | None = None) -> Finding:
    return Finding(check, "fail", says, mend)
