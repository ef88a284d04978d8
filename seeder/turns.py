"""In which order the blobs of an image are pulled: a few abreast, the others in line.

Nodes exchange a segment once its hashes are there, and those come with its last byte. Were all layers
of an image pulled side by side, each would get to the end of its segment at about the same moment: the
LAN would have nothing to do until then, and everything at once afterwards.

One repository's blobs stand in one line; repositories do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from p2pd.model.layout import SEGMENT, SMALL_BLOB
from p2pd.model.reference import Repository

__all__ = ["ABREAST", "IDLE", "LEAD", "TURN", "Turn", "Turns"]

ABREAST = 2
"""Blobs of a repository that get on at a time: where one waits for its origin, the other uses the WAN."""

TURN = SEGMENT
"""Bytes after which a blob goes to the end of the line. So many are of use at all; on a slow link, and with
large layers, more would leave the others without a byte for minutes."""

LEAD = 10.0
"""Seconds at most for which one that begins its turn has the origin to itself, until half of its segment is
there: two side by side would end theirs at the same moment."""

_DRIP, _LEAD_OF_DRIP = 64 * 1024, 2.0
"""The same for one of which so few bytes came: its origin does not give it more if it is alone."""

IDLE = 1.0
"""Seconds after which a blob to which nothing comes, as its origin stalls, holds up nobody."""


class Turns:
    """The lines of all repositories."""

    def __init__(self) -> None:
        self._lines: dict[Repository, _Line] = {}

    @contextmanager
    def enter(self, repository: Repository, size: int) -> Iterator[Turn]:
        """Stand in line with a blob of `size` bytes. A small one never waits: its turn is over in no time."""
        line = self._lines.setdefault(repository, _Line())
        turn = Turn(line, size)
        line.turns.append(turn)
        try:
            yield turn
        finally:
            line.turns.remove(turn)
            line.move()
            if not line.turns:
                del self._lines[repository]


class _Line:
    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self._moved = trio.Event()

    def move(self) -> None:
        """Something changed: those who wait look again."""
        self._moved.set()
        self._moved = trio.Event()

    async def wait(self) -> None:
        """Until it moves, or somebody may have become idle."""
        with trio.move_on_after(IDLE):
            await self._moved.wait()


class Turn:
    """One blob's place in the line of its repository."""

    def __init__(self, line: _Line, size: int) -> None:
        self._line = line
        self._is_free = size <= SMALL_BLOB
        self._half = min(size, TURN) // 2
        self._is_waiting = False
        self._began_with: int | None = None
        self._came = 0
        self._drips = False
        self._began_at: float | None = None
        self._moved_at = trio.current_time()

    async def wait(self, frontier: int) -> None:
        """Return when the bytes from `frontier` on may come; to be called before each few of them."""
        if self._is_free:
            return
        self._moved_at = trio.current_time()
        if self._began_with is None:
            self._began_with = frontier
        elif frontier - self._began_with >= TURN:
            self._began_with, self._began_at, self._drips = frontier, None, False
            self._line.turns.remove(self)
            self._line.turns.append(self)
            self._line.move()
        self._drips |= self._came < _DRIP and not self._is_within(_LEAD_OF_DRIP)
        had_lead, self._came = self._came < self._half, frontier - self._began_with
        if had_lead and self._came >= self._half:
            self._line.move()
        self._is_waiting = True
        try:
            while self._is_held_up():
                await self._line.wait()
        finally:
            self._is_waiting = False
            self._moved_at = trio.current_time()
            if self._began_at is None:
                self._began_at = self._moved_at

    def _is_held_up(self) -> bool:
        turns = self._line.turns
        ahead = [turn for turn in turns[: turns.index(self)] if turn._holds_up()]
        return len(ahead) >= ABREAST or any(turn._leads() for turn in ahead)

    def _leads(self) -> bool:
        """Whether it is in the first half of its turn."""
        if self._drips or self._came >= self._half:
            return False
        return self._is_within(LEAD if self._came >= _DRIP else _LEAD_OF_DRIP)

    def _is_within(self, seconds: float) -> bool:
        """Whether no more have passed since it began its turn."""
        return self._began_at is None or trio.current_time() - self._began_at < seconds

    def _holds_up(self) -> bool:
        if self._is_free:
            return False
        return self._is_waiting or trio.current_time() - self._moved_at <= IDLE
