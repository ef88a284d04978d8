"""Writes on a disk that may be full: room is asked for once, then the write is tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

from p2pd.io.files import disk_errors
from p2pd.model.errors import StoreFull
from p2pd.ports.store import MakeRoom

__all__ = ["Room"]

T = TypeVar("T")


class Room:
    """Who can make room is told later, by `make_room`; until then a full disk is just full."""

    def __init__(self) -> None:
        self.make_room: MakeRoom | None = None

    async def write(self, doing: str, work: Callable[[], T]) -> T:
        """Run `work` in a thread; raises StoreFull, StoreError. `work` must bear being repeated."""
        try:
            with disk_errors(doing):
                return await trio.to_thread.run_sync(work)
        except StoreFull:
            if self.make_room is None or not await self.make_room():
                raise
        with disk_errors(doing):
            return await trio.to_thread.run_sync(work)
