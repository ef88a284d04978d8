"""What a row of the fault matrix is, what is seen when it is played, and the judgement. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.faults.stage import Stage

__all__ = ["Limits", "Row", "Seen", "document", "judge", "table"]

_STRIPE = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Most that is allowed; None is not judged.

    `wan_ratio`: what p2pd brought over the WAN, in plain downloads of the image. `extra_s`: seconds
    over the run without a fault, and over those that the WAN needs for what runtimes fetch by themselves.
    `recovered_s`: from the fault's end until all is as before. `lost`: stripes that a daemon which is killed
    may have had, or given, a part of, or a liar spoils; in a small image that is a share of its own, on top
    of `wan_ratio`.
    """

    wan_ratio: float | None = 1.10
    extra_s: float | None = 5.0
    recovered_s: float | None = 10.0
    lost: int = 0

    def most(self, name: str, image_bytes: float) -> float | None:
        """The limit by this name for an image of that size."""
        most: float | None = getattr(self, name)
        if name == "wan_ratio" and most is not None:
            most += self.lost * _STRIPE / image_bytes
        return most


@dataclass(frozen=True, slots=True)
class Row:
    """`fault` says what breaks, `promise` what must hold besides right bytes and no failed pull."""

    name: str
    fault: str
    promise: str
    play: Callable[[Stage], None]
    limits: Limits = Limits()
    in_suite: bool = False
    """Whether it is cheap and telling enough to be part of `make test`."""


@dataclass(slots=True)
class Seen:
    """What came of it. `broken`: promises of the row itself; `leftovers`: files, memory, descriptors."""

    pulls: int = 0
    pulls_failed: int = 0
    wrong_bytes: int = 0
    image_bytes: float = inf
    wan_ratio: float | None = None
    extra_s: float | None = None
    recovered_s: float | None = None
    leftovers: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def judge(limits: Limits, seen: Seen) -> list[str]:
    """The promises that are broken, a line each; empty when all hold."""
    found = list(seen.broken)
    if seen.pulls_failed:
        found.append(f"{seen.pulls_failed} of {seen.pulls} pulls failed")
    if seen.wrong_bytes:
        found.append(f"{seen.wrong_bytes} blobs are absent or wrong")
    for name in ("wan_ratio", "extra_s", "recovered_s"):
        most, value = limits.most(name, seen.image_bytes), getattr(seen, name)
        if most is not None and value is not None and value > most:
            found.append(f"{name} {value:.2f} > {most:.2f}")
    return found + [f"left over: {what}" for what in seen.leftovers]


def document(row: Row, seen: Seen, seconds: float) -> dict[str, object]:
    """The JSON document of a row that was played."""
    limits = {name: most for name, most in asdict(row.limits).items() if most is not None}
    words = {"name": row.name, "fault": row.fault, "promise": row.promise, "limits": limits}
    return {**words, **asdict(seen), "failures": judge(row.limits, seen), "seconds": round(seconds, 1)}


def table(row: Row, seen: Seen) -> str:
    """One line for people, and one for each broken promise."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    failures = judge(row.limits, seen)
    line = (
        f"{row.name:20}{seen.pulls - seen.pulls_failed:>4}/{seen.pulls:<4}{seen.wrong_bytes:>6}"
        f"{number(seen.wan_ratio):>8}{number(seen.extra_s):>8}{number(seen.recovered_s):>8}"
        f"  {'FAILED' if failures else 'held':7} {row.fault}"
    )
    return "\n".join([line, *(f"    {failure}" for failure in failures)])


HEAD = f"{'row':20}{'pulls':>9}{'wrong':>6}{'WAN':>8}{'extra s':>8}{'back s':>8}  promise fault"
