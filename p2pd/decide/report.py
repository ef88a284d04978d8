"""What the members of a blob are told of this node's progress, and when."""

from __future__ import annotations

from p2pd.decide.bits import bits_to_run
from p2pd.model.messages import ProgressDelta
from p2pd.model.reference import Digest

__all__ = ["HEARTBEAT", "REPORT_EVERY", "WHOLE_EVERY", "Report"]

REPORT_EVERY = 0.7
"""Seconds between reports while something changes: evidence for takeover is about a second old at most."""

HEARTBEAT = 2.0
"""Seconds between reports while nothing does."""

WHOLE_EVERY = 10.0
"""Seconds between reports that tell all that is had: a link that broke may have lost some, and a reply on the
other connection may have put an older state in place of a newer one."""


class Report:
    """Makes deltas: what was gained since the last one, and all that is in flight.

    Whoever becomes a member is told the whole state first (`Want`); gains are a union, so that one told
    twice, or in another order, does no harm, and all are told again now and then.
    """

    def __init__(self, digest: Digest, size: int) -> None:
        self._digest = digest
        self._size = size
        self._told: tuple[int, int, str, bool] | None = None
        self._told_at = self._told_whole_at = float("-inf")

    def due(
        self, have: int, claimed: int, way: str, now: float, *, waits: bool = False
    ) -> ProgressDelta | None:
        """The delta to send now, None where there is nothing to say."""
        state = (have, claimed & ~have, way, waits)
        if state == self._told and now - self._told_at < HEARTBEAT:
            return None
        gained = have & ~(self._told[0] if self._told is not None else 0)
        if now - self._told_whole_at >= WHOLE_EVERY:
            gained, self._told_whole_at = have, now
        self._told, self._told_at = state, now
        gains, flies = bits_to_run(gained), bits_to_run(state[1])
        return ProgressDelta(self._digest, self._size, *gains, *flies, way, waits)
