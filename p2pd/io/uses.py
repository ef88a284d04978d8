"""When each held blob was last used.

Kept on the monotonic clock, which no jump of the wall clock ages; what survives a restart is the
time of last change of the blob's file, renewed at most once an hour, so that reading costs no writes.
"""

from __future__ import annotations

import time

import trio

from p2pd.io.scan import Index
from p2pd.model.reference import Digest

__all__ = ["Uses"]

_STAMP_EVERY = 3600.0


class Uses:
    """Begins with what the disk says; a time in the future counts as now."""

    def __init__(self, index: Index) -> None:
        now, today = trio.current_time(), time.time()
        self._used = {digest: now - max(0.0, today - blob.used_at) for digest, blob in index.items()}
        self._stamped = dict(self._used)

    def note(self, digest: Digest) -> bool:
        """The blob is used now; whether that is to be written down."""
        now = self._used[digest] = trio.current_time()
        if now - self._stamped.get(digest, float("-inf")) < _STAMP_EVERY:
            return False
        self._stamped[digest] = now
        return True

    def begin(self, digest: Digest) -> None:
        """The blob's file was written now."""
        self._used[digest] = self._stamped[digest] = trio.current_time()

    def forget(self, digest: Digest) -> None:
        self._used.pop(digest, None)
        self._stamped.pop(digest, None)

    def idle(self, digest: Digest) -> float:
        """Seconds since the last use."""
        now = trio.current_time()
        return now - self._used.get(digest, now)
