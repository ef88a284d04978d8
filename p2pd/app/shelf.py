"""Which segments are loaded in the swarm session, and for how long.

A node may hold thousands of blobs; only segments in use are loaded. A transfer pins the ones it
works on. A held segment that a peer asks for is staged (by a second name of its file) and loaded, and
leaves again when it is the least recently asked for among too many, or idle too long.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import trio

from p2pd.model.errors import P2pdError
from p2pd.model.layout import SegmentMeta
from p2pd.model.reference import Digest
from p2pd.ports.store import Store
from p2pd.ports.swarm import SwarmEngine, SwarmSegment

__all__ = ["Shelf"]

log = structlog.get_logger()

Key = tuple[Digest, int]

UNPINNED_LIMIT = 12
"""Segments kept loaded for peers alone. Bounds the disk space of staged copies (192 MiB), for where a segment
has no file of its own: blobs of the container runtime, and of earlier releases."""

IDLE_AFTER = 60.0


class Shelf:
    """Loads and unloads segments; every method may be called by any task."""

    def __init__(self, engine: SwarmEngine, store: Store) -> None:
        self._engine = engine
        self._store = store
        self._loaded: OrderedDict[Key, SwarmSegment] = OrderedDict()
        self._used_at: dict[Key, float] = {}
        self._pins: dict[Key, int] = {}
        self._locks: dict[Key, trio.Lock] = {}

    @property
    def swarm_port(self) -> int:
        return self._engine.port

    @property
    def loaded(self) -> set[Key]:
        """Segments whose staged files are in use, or about to be."""
        return {*self._loaded, *self._locks}

    async def discard(self, digest: Digest, index: int) -> None:
        """Delete what an earlier run left of a staged segment, unless it is loaded. Raises StoreError."""
        async with self._exclusive((digest, index)):
            if (digest, index) not in self._loaded:
                await self._store.unstage(digest, index)

    def get(self, digest: Digest, index: int) -> SwarmSegment | None:
        """The segment if it is loaded now; counts as use."""
        key = (digest, index)
        segment = self._loaded.get(key)
        if segment is not None:
            self._touch(key)
        return segment

    async def load(self, meta: SegmentMeta) -> SwarmSegment:
        """Load a segment for a transfer and pin it; `release` it later. Raises StoreError."""
        key = (meta.digest, meta.index)
        async with self._exclusive(key):
            segment = self._loaded.get(key)
            if segment is not None and segment.meta != meta:
                await self._unload(key)
                segment = None
            if segment is None:
                path = await self._store.own_staged(meta.digest, meta.index)
                segment = await self._engine.add(meta, path, complete=False)
                self._loaded[key] = segment
            self._pins[key] = self._pins.get(key, 0) + 1
            self._touch(key)
            return segment

    async def offer(self, digest: Digest, index: int, meta: SegmentMeta | None = None) -> SwarmSegment | None:
        """Load a segment that the store has whole, for peers; None where it has not. Not pinned.

        `meta` is needed for a segment of a blob in assembly; of a held one the store knows it.
        """
        key = (digest, index)
        async with self._exclusive(key):
            if (segment := self.get(digest, index)) is not None:
                return segment
            meta = meta or await self._store.segment_meta(digest, index)
            path = None if meta is None else await self._store.stage(digest, index)
            if meta is None or path is None:
                return None
            try:
                segment = await self._engine.add(meta, path, complete=True)
            except P2pdError:
                await self._unstage(key)
                raise
            self._loaded[key] = segment
            self._touch(key)
        await self._trim()
        return segment

    async def release(self, digest: Digest, index: int, *, keep: bool, forget: bool = True) -> None:
        """Undo one `load`. `keep`: leave it loaded for peers while there is room; else unload it.

        Unless `forget`, the file of one that is unloaded stays for the next attempt.
        """
        key = (digest, index)
        # Shielded: a pin that a cancelled transfer did not give back would hold its segment for ever.
        with trio.CancelScope(shield=True):
            async with self._exclusive(key):
                pins = self._pins.pop(key, 0) - 1
                if pins > 0:
                    self._pins[key] = pins
                elif not keep:
                    await self._unload(key, forget=forget)
        await self._trim()

    async def tend(self) -> None:
        """Unload what no peer has asked for in a while, for ever."""
        while True:
            await trio.sleep(IDLE_AFTER / 4)
            too_old = trio.current_time() - IDLE_AFTER
            for key in [key for key, at in self._used_at.items() if at < too_old]:
                await self._unload_unpinned(key)

    def _touch(self, key: Key) -> None:
        self._loaded.move_to_end(key)
        self._used_at[key] = trio.current_time()

    async def _trim(self) -> None:
        unpinned = [key for key in self._loaded if key not in self._pins]
        for key in unpinned[: max(0, len(unpinned) - UNPINNED_LIMIT)]:
            await self._unload_unpinned(key)

    async def _unload_unpinned(self, key: Key) -> None:
        async with self._exclusive(key):
            if key not in self._pins:
                await self._unload(key)

    async def _unload(self, key: Key, *, forget: bool = True) -> None:
        segment = self._loaded.pop(key, None)
        self._used_at.pop(key, None)
        if segment is None:
            return
        with trio.CancelScope(shield=True):
            await segment.remove()
            if forget:
                await self._unstage(key)

    async def _unstage(self, key: Key) -> None:
        try:
            await self._store.unstage(*key)
        except P2pdError as error:
            log.warning("shelf.unstage_failed", digest=str(key[0]), segment=key[1], reason=str(error))

    @asynccontextmanager
    async def _exclusive(self, key: Key) -> AsyncIterator[None]:
        """One load or unload of a segment at a time; the lock goes when nobody wants it."""
        lock = self._locks.setdefault(key, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._locks.get(key) is lock:
                del self._locks[key]
