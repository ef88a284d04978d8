"""Handlers of peer requests, for tests of the control plane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from p2pd.model.messages import Fetched, Notice, Query, QueryReply, Read, ReadReply, Reply, Request
from p2pd.ports.peers import Peer

__all__ = ["ScriptedHandler"]


class ScriptedHandler:
    """Answers with `script` when there is one; keeps what it was asked and told."""

    def __init__(self, script: Callable[[Request], Awaitable[Reply]] | None = None) -> None:
        self._script = script
        self.asked: list[tuple[Peer, Request]] = []
        self.told: list[tuple[Peer, Notice]] = []
        self._changed = trio.Event()

    async def answer(self, peer: Peer, request: Request) -> Reply:
        self.asked.append((peer, request))
        self._tell()
        if self._script is not None:
            return await self._script(request)
        match request:
            case Query():
                return QueryReply(7, None)
            case Read(offset=offset, length=length):
                return ReadReply(bytes([offset % 256]) * length)
            case _:
                return Fetched(1)

    def notice_nowait(self, peer: Peer, notice: Notice) -> None:
        self.told.append((peer, notice))
        self._tell()

    async def wait_until(self, condition: Callable[[ScriptedHandler], bool]) -> None:
        while not condition(self):
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
