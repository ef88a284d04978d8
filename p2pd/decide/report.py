"""What the members of a blob are told of this node's progress, and when."""

from __future__ import annotations

from dataclasses import dataclass

from p2pd.decide.bits import bits_to_run
from p2pd.model.messages import ProgressDelta
from p2pd.model.reference import Digest

__all__ = [
    "HEARTBEAT",
    "MANY",
    "REPORT_EVERY",
    "WHOLE_EVERY",
    "Report",
    "Word",
    "tells_gains",
    "until_next_report",
]

_SOONEST = 0.1
"""A timer's end is not exactly the moment that it was set for."""

REPORT_EVERY = 0.7
"""Seconds between reports while something changes: evidence for takeover is about a second old at most."""

_ALL_EVERY = 1.5 * REPORT_EVERY
"""At every other report, whatever the timer's lateness."""

_NO_WAY = "none"

MANY = 8
"""Members beyond whom a node tells of stripes that it only got from the LAN at every third report. Of each,
everybody hears from everybody; what decides who fetches is what others claim, and have fetched."""

_GAINS_EVERY = 3

HEARTBEAT = 2.0
"""Seconds between reports while nothing does."""

WHOLE_EVERY = 10.0
"""Seconds between reports that tell all that is had: a link that broke may have lost some, and a reply on the
other connection may have put an older state in place of a newer one."""


def until_next_report(wall: float) -> float:
    """Seconds until the next report, by the time of day.

    All tell at the same moments, as far as their clocks agree: who hears sixteen wakes once and not sixteen
    times, with whatever caches a busy small machine has left it, and decides once.
    """
    wait = REPORT_EVERY - wall % REPORT_EVERY
    return wait if wait > _SOONEST else wait + REPORT_EVERY


def tells_gains(turn: int, members: int) -> bool:
    """Whether gains alone are worth a word at report number `turn`, to so many members."""
    return members <= MANY or turn % _GAINS_EVERY == 0


@dataclass(frozen=True, slots=True)
class Word:
    """What is due. `for_all`: to every member, else to those alone that fetch over the WAN."""

    delta: ProgressDelta
    for_all: bool


@dataclass(slots=True)
class _Told:
    state: tuple[int, int, str, bool] | None = None
    at: float = float("-inf")

    def knows(self, state: tuple[int, int, str, bool], *, but_gains: bool) -> bool:
        """Whether nothing in `state` is news; `but_gains`: besides what was gained."""
        return self.state is not None and (self.state[1:] == state[1:] if but_gains else self.state == state)


class Report:
    """Makes deltas: what was gained since all were told the last time, and all that is in flight.

    Whoever becomes a member is told the whole state first (`Want`); gains are a union, so that one told
    twice, or in another order, does no harm, and all are told again now and then.

    In a large site a hundred follow each fetcher, and fetch nothing: they are no part of who fetches what,
    and tell, and are told, at every other report.
    """

    def __init__(self, digest: Digest, size: int) -> None:
        self._digest = digest
        self._size = size
        self._all, self._last = _Told(), _Told()
        self._told_whole_at = float("-inf")

    def due(
        self,
        have: int,
        claimed: int,
        way: str,
        now: float,
        *,
        waits: bool = False,
        is_large: bool = False,
        tell_gains: bool = True,
    ) -> Word | None:
        """What to send now, None where there is nothing to say. `tell_gains`: these alone are something."""
        state = (have, claimed & ~have, way, waits)
        for_all = not is_large or now - self._all.at >= _ALL_EVERY
        last = self._last
        if not for_all and last.state is not None and last.state[1:3] == state[1:3] == (0, _NO_WAY):
            return None
        told = (last, self._all) if for_all else (last,)
        is_known = all(each.knows(state, but_gains=not tell_gains) for each in told)
        if is_known and now - last.at < HEARTBEAT:
            return None
        gained = have & ~(self._all.state[0] if self._all.state is not None else 0)
        if for_all and now - self._told_whole_at >= WHOLE_EVERY:
            gained, self._told_whole_at = have, now
        self._last = _Told(state, now)
        if for_all:
            self._all = self._last
        gains, flies = bits_to_run(gained), bits_to_run(state[1])
        return Word(ProgressDelta(self._digest, self._size, *gains, *flies, way, waits), for_all)
