"""Which other nodes hold what this one may let go, and handing over what they hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager

import trio

from p2pd.decide.eviction import Standing, standing
from p2pd.model.errors import P2pdError
from p2pd.model.messages import Query, QueryReply
from p2pd.model.reference import Digest
from p2pd.ports.peers import Peers

__all__ = ["Copies"]

QUERY = 0.5

HAND_OVER = 1.5
"""Seconds until everybody who counted on this node's copy when it was still promised has let go of its
own, or asks again: more than a round of `QUERY` and the deletion after it take."""


class Copies:
    """Asks live peers with `Query`. Without `peers` (the seeder) nobody else has anything."""

    def __init__(self, me: str = "", peers: Peers | None = None) -> None:
        self._me = me
        self._peers = peers
        self._leaving: set[Digest] = set()

    def is_leaving(self, digest: Digest) -> bool:
        """Whether this node is about to let go of the blob: then it does not say that it holds it."""
        return digest in self._leaving

    async def standings(self, digests: Collection[Digest]) -> dict[Digest, Standing]:
        """Where this node's copies stand, by what its peers say now. A peer that does not answer has none."""
        holders: dict[Digest, set[str]] = {digest: set() for digest in digests}

        async def ask(node: str) -> None:
            if self._peers is None:
                return
            for digest in digests:
                try:
                    reply = await self._peers.request(node, Query(digest), QUERY)
                except P2pdError:
                    return  # nor is it waited for again and again
                if isinstance(reply, QueryReply) and reply.held_size is not None:
                    holders[digest].add(node)

        async with trio.open_nursery() as nursery:
            for peer in self._peers.live() if self._peers is not None else []:
                nursery.start_soon(ask, peer.node_id)
        return {digest: standing(self._me, digest, nodes) for digest, nodes in holders.items()}

    async def is_spare(self, digest: Digest) -> bool:
        """Whether a node of higher rank promises now to hold on; what it says is good for `QUERY` seconds."""
        with trio.move_on_after(QUERY):
            return (await self.standings([digest]))[digest] is Standing.SPARE
        return False

    @asynccontextmanager
    async def handing_over(self, digests: Iterable[Digest]) -> AsyncIterator[set[Digest]]:
        """Those that other nodes hold on to although this one, first in rank, lets go.

        Two that let go of one blob at once would each count on the other: so this node first takes
        back its promise, waits until nobody counts on it, and then asks again.
        """
        mine = set(digests) - self._leaving
        self._leaving |= mine
        try:
            if mine:
                await trio.sleep(HAND_OVER)
            found = await self.standings(mine)
            yield {digest for digest, stands in found.items() if stands is not Standing.SOLE}
        finally:
            self._leaving -= mine
