"""What this node answers to its peers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from typing import Any

import trio

from p2pd.app.copies import Copies
from p2pd.app.fallback import plausible
from p2pd.app.site import Site
from p2pd.app.small import SmallObjects
from p2pd.app.tags import Tags
from p2pd.app.transfers import Transfers
from p2pd.decide.circle import worth_knowing
from p2pd.model.errors import Denied, NotFound, PeerProtocolError
from p2pd.model.layout import SMALL_BLOB, SegmentMeta
from p2pd.model.messages import (
    INTERESTED_LIMIT,
    Fetch,
    Fetched,
    Interest,
    Interested,
    Join,
    Joined,
    Notice,
    Ping,
    Pong,
    Progress,
    ProgressBatch,
    Query,
    QueryReply,
    Read,
    ReadReply,
    Recall,
    Recalled,
    Reply,
    Request,
    Resolve,
    UseQuery,
    UseReply,
    Want,
    Wanted,
    WantReply,
)
from p2pd.model.reference import Repository
from p2pd.ports.content import Blob
from p2pd.ports.peers import Peer

__all__ = ["PeerService"]

LOOK_SMALL = 0.4
LOOK_LARGE = 2.5
"""Seconds in which content of the runtime's store is checked before the answer to `Query` and `Want`:
less than who asks waits. It goes on afterwards, for who asks again."""


class PeerService:
    """`p2pd.ports.peers.PeerHandler`. Answers once `attach` has given it something to answer from."""

    def __init__(self) -> None:
        self._attached = trio.Event()
        self._answers: dict[type, Callable[[Peer, Any], Awaitable[Reply]]] = {
            Ping: self._ping,
            Query: self._query,
            Want: self._want,
            Interest: self._interest,
            Join: self._join,
            Read: self._read,
            Fetch: self._fetch,
            Resolve: self._resolve,
            Recall: self._recall,
            UseQuery: self._use,
        }

    def attach(
        self,
        site: Site,
        transfers: Transfers,
        small: SmallObjects,
        tags: Tags,
        copies: Copies | None = None,
        registries: Collection[str] | None = None,
    ) -> None:
        """`registries`: those that a peer may have this node ask; any where none are given."""
        self._site = site
        self._transfers = transfers
        self._small = small
        self._tags = tags
        self._copies = copies or Copies()
        self._registries = registries
        self._attached.set()

    async def answer(self, peer: Peer, request: Request) -> Reply:
        if not self._attached.is_set():
            await self._attached.wait()
        handler = self._answers.get(type(request))
        if handler is None:
            raise PeerProtocolError(f"{type(request).__name__} is not a request")
        return await handler(peer, request)

    def notice_nowait(self, peer: Peer, notice: Notice) -> None:
        if not self._attached.is_set():
            return
        if isinstance(notice, ProgressBatch):
            for delta in notice.deltas:
                if (transfer := self._transfers.running(delta.digest)) is not None:
                    transfer.member_advances(peer.node_id, delta)
            return
        if isinstance(notice, Wanted):
            self._site.interests.note(notice.digest, peer.node_id)
        transfer = self._transfers.running(notice.digest)
        if transfer is None or transfer.is_alone:
            return
        if isinstance(notice, Progress):
            transfer.member_stands(peer.node_id, notice)
        elif isinstance(notice, Wanted):
            transfer.peers_changed()
        else:
            meta = SegmentMeta(notice.digest, notice.size, notice.index, notice.piece_hashes)
            transfer.hear_meta(peer.node_id, meta)

    async def _ping(self, peer: Peer, request: Ping) -> Reply:
        return Pong()

    async def _use(self, peer: Peer, request: UseQuery) -> Reply:
        return UseReply(self._site.links.own())

    async def _query(self, peer: Peer, request: Query) -> Reply:
        transfer = self._transfers.running(request.digest)
        wanted = None if transfer is None else transfer.layout.size
        held = await self._site.store.look(request.digest, LOOK_SMALL, SMALL_BLOB)
        return QueryReply(None if self._copies.is_leaving(request.digest) else held, wanted)

    async def _want(self, peer: Peer, request: Want) -> Reply:
        progress = request.progress
        transfer = self._transfers.running(progress.digest)
        self._site.interests.note(progress.digest, peer.node_id)
        if transfer is None or transfer.is_alone:
            size = await self._site.store.look(progress.digest, LOOK_LARGE)
            return WantReply(size == progress.size, None)
        transfer.member_stands(peer.node_id, progress)
        return WantReply(False, transfer.progress)

    async def _interest(self, peer: Peer, request: Interest) -> Reply:
        known = self._site.interests.of(request.digest)
        if self._transfers.running(request.digest) is not None:
            known.add(self._site.me)
        known.discard(peer.node_id)
        return Interested(tuple(worth_knowing(request.digest, peer.node_id, known, INTERESTED_LIMIT)))

    async def _join(self, peer: Peer, request: Join) -> Reply:
        shelf, digest, index = self._site.shelf, request.digest, request.index
        transfer = self._transfers.running(digest)
        segment = shelf.get(digest, index)
        if segment is None:
            assembled = None if transfer is None else transfer.partial.segment_meta(index)
            if assembled is not None or self._site.store.size_of(digest) is not None:
                segment = await shelf.offer(digest, index, assembled)
        if segment is not None:
            return _joined(True, request, segment.meta)
        return _joined(False, request, None if transfer is None else transfer.metas.get(index))

    async def _read(self, peer: Peer, request: Read) -> Reply:
        stop = request.offset + request.length
        blob: Blob | None = await self._site.store.open(request.digest)
        transfer = self._transfers.running(request.digest)
        if blob is None and transfer is not None and stop <= transfer.readable:
            blob = transfer.partial  # for a node that cannot take part in the transfer: its disk is full
        if blob is None or stop > blob.size:
            raise NotFound(f"{request.digest} is not held here, or is shorter")
        async with aclosing(blob.chunks(request.offset, stop)) as chunks:
            return ReadReply(b"".join([chunk async for chunk in chunks]))

    async def _fetch(self, peer: Peer, request: Fetch) -> Reply:
        self._check_allowed(request.repository)
        size = await self._small.fetch_for_peer(
            request.repository, request.digest, is_manifest=request.is_manifest
        )
        return Fetched(size)

    async def _resolve(self, peer: Peer, request: Resolve) -> Reply:
        self._check_allowed(request.repository)
        return await self._tags.answer_peer(request)

    def _check_allowed(self, repository: Repository) -> None:
        """Peers may ask for no more than clients: what is asked upstream is counted by registry, for ever."""
        if self._registries is not None and repository.registry not in self._registries:
            raise Denied(f"{repository.registry} is not an upstream of this node")

    async def _recall(self, peer: Peer, request: Recall) -> Reply:
        record = await self._site.store.listing(request.key)
        if record is None:
            return Recalled(None)
        return Recalled(record.body, max(0.0, time.time() - plausible(record.confirmed_at)))


def _joined(loaded: bool, request: Join, meta: SegmentMeta | None) -> Joined:
    if meta is None or request.knows_hashes:
        return Joined(loaded, None)
    is_same = request.fingerprint == meta.fingerprint
    return Joined(loaded, None if is_same else meta.piece_hashes, is_same)
