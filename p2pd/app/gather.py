"""When to read on from a slow link: a read that returns a packet or two costs as much CPU as one of many."""

from __future__ import annotations

import trio

__all__ = ["Gather"]

_GATHER = 48 * 1024
_GATHER_BOUNDS = (0.01, 0.25)
"""Bytes, and seconds. Less than a new connection's window: a sender that fills it has to wait for us."""

_AT_ONCE = 0.002
"""Seconds: a read as quick as that did not wait."""

_RECORD = 16 * 1024
"""What TLS gives in one read, at most. If it does so at once, more may be there."""


class Gather:
    """Gives the kernel time to gather `_GATHER` bytes, or what is missing, at the rate of the last read."""

    def __init__(self, now: float) -> None:
        self._read_at = self._asked_at = now
        self._has_slept = False

    async def before_next(self, count: int, missing: int) -> None:
        """`count` bytes were read: sleep until it pays to read on."""
        now = trio.current_time()
        had_to_wait = now - self._asked_at > _AT_ONCE
        is_all = had_to_wait or count >= _GATHER // 2 or (self._has_slept and count < _RECORD)
        # More than was hoped for: the link is quicker than before, and the sender may be waiting.
        self._has_slept = missing > 0 and is_all and count <= _GATHER
        if self._has_slept:
            low, high = _GATHER_BOUNDS
            seconds = min(_GATHER, missing) * (now - self._read_at) / max(count, 1)
            await trio.sleep(min(max(low, seconds), high))
        self._read_at, self._asked_at = now, trio.current_time()
