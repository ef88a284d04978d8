"""The LAN plane of a transfer: its segments' torrents, from metadata to the last piece."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import structlog
import trio

from p2pd.app.joins import Joins
from p2pd.app.metadata import Metadata
from p2pd.app.transfer_state import TransferState
from p2pd.model.errors import P2pdError, WrongContent
from p2pd.model.layout import SegmentMeta
from p2pd.ports.swarm import SwarmSegment

__all__ = ["Segments"]

log = structlog.get_logger()

CHECK_STAGED = 3.0
"""Seconds that files of an earlier run may hold up the first request over the WAN."""


def _nobody_waits(stripe: int) -> None:
    pass


class Segments:
    """A task each: gets its metadata, loads its torrent, meets peers, tells the plan what arrives.

    `on_gained` is called with each stripe that arrived, whichever way it came.
    """

    def __init__(self, state: TransferState, metadata: Metadata, joins: Joins) -> None:
        self._state = state
        self._metadata = metadata
        self._joins = joins
        self.on_gained: Callable[[int], None] = _nobody_waits
        self._working: set[int] = set()
        self._loaded: dict[int, SwarmSegment] = {}
        self._unchecked: set[int] = set()
        self._raw: dict[int, bytes] = {}
        self._given: dict[int, bytes] = {}

    def work_on(self, index: int) -> None:
        """Have a task for this segment."""
        if index not in self._working:
            self._working.add(index)
            self._state.start_soon(self._work, index)

    def loaded(self, index: int) -> SwarmSegment | None:
        """The segment, where its torrent is loaded and its bytes are not all in the blob's file yet."""
        return self._loaded.get(index)

    async def check_staged(self) -> None:
        """Have files that an earlier run left checked before anything in them is fetched again."""
        state = self._state
        try:
            self._unchecked = set(state.plan.window()) & await state.site.store.staged(state.digest)
        except P2pdError as error:
            log.info("transfer.fault", digest=str(state.digest), reason=str(error))
        for index in self._unchecked:
            self.work_on(index)
        with trio.move_on_after(CHECK_STAGED):
            while self._unchecked:
                await state.changed.wait()

    def take(self, stripe: int, data: bytes) -> None:
        """A stripe came over the WAN: to its torrent, or wait until that is loaded."""
        segment = self._loaded.get(self._state.layout.stripe(stripe).segment)
        if segment is None:
            self._raw[stripe] = data
        else:
            self._give(segment, stripe, data)

    async def release(self, index: int, *, keep: bool, forget: bool = False) -> None:
        """This transfer needs its torrent no longer (`Shelf.release`)."""
        self._loaded.pop(index)
        await self._state.site.shelf.release(self._state.digest, index, keep=keep, forget=forget)

    async def release_all(self, *, keep: bool, forget: bool) -> None:
        for index in list(self._loaded):
            await self.release(index, keep=keep, forget=forget)

    async def _work(self, index: int) -> None:
        try:
            meta = await self._joins.obtain_meta(index)
            segment = await self._load(meta)
            if not self._state.is_alone:
                self._state.start_soon(self._joins.join_peers, index, segment)
            await self._watch(index, segment)
        except P2pdError as error:
            self._state.fail(error)

    async def _load(self, meta: SegmentMeta) -> SwarmSegment:
        """Load the segment and give it what this node has of it already."""
        state, index, cut = self._state, meta.index, meta.segment
        partial, shelf = state.partial, state.site.shelf
        if partial.frontier >= cut.stop:
            segment = await shelf.offer(state.digest, index, meta)
            if segment is not None:
                return segment
        segment = await shelf.load(meta)
        self._loaded[index] = segment
        for stripe in state.layout.stripes_of(index):
            piece = state.layout.stripe(stripe)
            if piece.stop <= partial.frontier and piece.piece not in segment.have:
                data = b"".join([chunk async for chunk in partial.chunks(piece.start, piece.stop)])
                segment.add_piece_nowait(piece.piece, data)
            elif (raw := self._raw.pop(stripe, None)) is not None:
                self._give(segment, stripe, raw)
        return segment

    def _give(self, segment: SwarmSegment, stripe: int, data: bytes) -> None:
        self._given[stripe] = data
        segment.add_piece_nowait(self._state.layout.stripe(stripe).piece, data)

    async def _watch(self, index: int, segment: SwarmSegment) -> None:
        """Tell the plan which pieces arrive, and delivery what is on the disk, until all is."""
        state = self._state
        first = state.layout.stripes_of(index).start
        seen = set(segment.have)
        for piece in seen:
            state.plan.gained(first + piece, trio.current_time())
        self._unchecked.discard(index)
        state.poke()
        readable = 0
        while True:
            changed = segment.changed
            if segment.error is not None:
                raise segment.error
            now = trio.current_time()
            gained, refused = segment.have - seen, segment.take_refused()
            for piece in gained:
                seen.add(piece)
                self._gained(first + piece, segment.meta.segment.piece_size(piece), now)
            for piece in refused:
                state.site.metrics.hash_failures.labels("piece").inc()
                self._check_refused(segment, first + piece)
            if gained or refused:
                state.poke()
            if len(segment.readable) != readable:
                readable = len(segment.readable)
                state.grew()
            if readable == segment.meta.segment.piece_count:
                return
            await changed.wait()

    def _gained(self, stripe: int, size: int, now: float) -> None:
        state = self._state
        if not state.plan.claimed >> stripe & 1:
            state.site.metrics.lan_bytes.inc(size)
        self._given.pop(stripe, None)
        self.on_gained(stripe)
        state.plan.gained(stripe, now)
        state.bytes_came(size)

    def _check_refused(self, segment: SwarmSegment, stripe: int) -> None:
        """A piece failed its hash. Blocks of a peer may have been mixed into one that came over the WAN.

        Where that one is bad by itself, the metadata is as suspect as the bytes.
        """
        state = self._state
        data = self._given.get(stripe)
        if data is not None and _sha1(data) == segment.meta.piece_hash(state.layout.stripe(stripe).piece):
            self._give(segment, stripe, data)
        elif state.plan.refused(stripe) and not state.is_alone:
            state.fail(WrongContent(f"bytes and metadata of {state.digest} do not fit: to be tried again"))


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()
