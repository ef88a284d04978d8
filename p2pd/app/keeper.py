"""Keeps the store within its limits: carries out what `p2pd.decide.eviction` decides.

Called by its own timer, before transfers, when a write finds the disk full, and by operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import structlog
import trio

from p2pd.app.copies import Copies
from p2pd.app.shelf import Shelf
from p2pd.decide.eviction import Standing, abandoned, expired, idle_times, in_order, is_tiny, shortfall
from p2pd.model.admin import Collected, Gone
from p2pd.model.content import referenced
from p2pd.model.errors import P2pdError, StoreError, StoreFull
from p2pd.model.layout import SMALL_BLOB
from p2pd.model.reference import Digest
from p2pd.model.stock import DiskSpace, Leftover, Limits, Stored
from p2pd.ports.store import Store

__all__ = ["Keeper"]

log = structlog.get_logger()

COLLECT_EVERY = 3600.0
LOOK_EVERY = 60.0
"""Seconds between two looks at the free space: others fill the disk too."""

AT_A_TIME = 64
ASKED_FIRST = 512
"""Blobs, the longest unused first, of which copies elsewhere are looked for before a last copy goes."""

TWIN = 2.0
"""Seconds in which files of the runtime are checked, that copies here may go; more is known the next time.
Somebody waits for the room, so that the rest goes in the usual order."""

RELIEF = 64 * 1024 * 1024
"""Bytes freed at least when a write found the disk full."""

ROOM_PATIENCE = 1.0
"""Seconds that a transfer, and a client with it, waits for the sake of the limits. What takes longer, such as
handing over to other nodes, goes on while it runs."""

GATHER = 1.0
"""Seconds in which the transfers that waited in vain, layers of one image, have begun and count."""

RELIEF_DEADLINE = 5.0
HOPELESS_FOR = 5.0
"""After a relief that freed nothing, seconds in which the next ones fail at once."""

TAGS_KEPT = 10_000


@dataclass(slots=True)
class _Round:
    """One collection under way."""

    dry_run: bool
    need: int = 0
    idle: Mapping[Digest, float] = field(default_factory=dict)
    gone: list[Gone] = field(default_factory=list)

    @property
    def freed(self) -> int:
        return sum(each.size for each in self.gone)

    def note(self, gone: Gone) -> None:
        self.gone.append(gone)
        self.need -= gone.size


class Keeper:
    """One collection at a time; `shelf` is the node's, `on_gone` is told reason and bytes."""

    def __init__(
        self,
        store: Store,
        limits: Limits,
        *,
        copies: Copies | None = None,
        shelf: Shelf | None = None,
        on_gone: Callable[[str, int], None] = lambda _reason, _size: None,
    ) -> None:
        self._store = store
        self._limits = limits
        self._copies = copies or Copies()
        self._shelf = shelf
        self._on_gone = on_gone
        self._lock = trio.Lock()
        self._parts: dict[Digest, frozenset[Digest]] = {}
        self._leftover_bytes = 0
        self._freed_at = self._hopeless_at = float("-inf")
        self._lacked: int | None = None
        """Bytes to come when room was missing last. A collection for fewer does not show that it is there."""
        self._overdue = trio.Event()
        store.on_full(self._relieve)

    async def run(self) -> None:
        """Collect by the clock, and when a transfer began without the room that it wants, for ever."""
        due = trio.current_time() + LOOK_EVERY
        while True:
            with trio.move_on_after(LOOK_EVERY):
                await self._overdue.wait()
                await trio.sleep(GATHER)
                self._overdue = trio.Event()
            try:
                if trio.current_time() >= due or await self._lacking(0):
                    await self.collect()
                    due = trio.current_time() + COLLECT_EVERY
            except P2pdError as error:
                log.warning("store.not_collected", reason=str(error))

    async def make_room(self, digest: Digest, size: int) -> None:
        """Before the transfer of a blob: let go what the limits ask for.

        Where these cannot be met, or not soon, the transfer goes on all the same: a client, and the site's
        other nodes, may be waiting for its bytes. What is too much goes afterwards. Raises StoreFull where
        the disk has no room.
        """
        try:
            lacking = await self._beyond_disk(digest, size)
            if lacking > await self._most_to_gain():
                # Emptying the store for what does not fit all the same would only harm the others.
                raise _no_room(digest, size, lacking)
            if await self._lacking(size):
                with trio.move_on_after(ROOM_PATIENCE) as patience:
                    await self.collect(incoming=size)
                if patience.cancelled_caught:
                    self._overdue.set()
            lacking = await self._beyond_disk(digest, size)
            if lacking > 0:
                with trio.move_on_after(RELIEF_DEADLINE):
                    await self.collect(incoming=size, at_least=lacking)
                lacking = await self._beyond_disk(digest, size)
        except StoreFull:
            raise
        except P2pdError as error:
            log.warning("store.not_collected", reason=str(error))
            return
        if lacking > 0:
            raise _no_room(digest, size, lacking)

    async def _most_to_gain(self) -> int:
        """Bytes that would be free if all went that may."""
        held = sum(blob.size for blob in self._store.stock().held if not blob.in_use)
        return held + sum(rest.size for rest in await self._leftovers())

    async def _beyond_disk(self, digest: Digest, size: int) -> int:
        """By how much the disk is too small for the blob, beside what is under way; part may be there."""
        free = (await self._store.space()).free - self._store.stock().pending
        if free >= size:
            return 0
        there = sum(rest.size for rest in await self._store.leftovers() if rest.digest == digest)
        return size - free - there

    async def collect(self, *, dry_run: bool = False, incoming: int = 0, at_least: int = 0) -> Collected:
        """Let go what is too old, and what is too much when `incoming` bytes are to come.

        `at_least`: bytes wanted whatever the limits say. Raises StoreError where the store cannot be read.
        """
        async with self._lock:
            store, limits = self._store, self._limits
            leftovers = await self._leftovers()
            self._leftover_bytes = sum(rest.size for rest in leftovers)
            space = await store.space()
            need = shortfall(limits, store.stock(), space, self._leftover_bytes, incoming)
            this = _Round(dry_run, max(need, at_least))
            for rest in abandoned(leftovers, this.need):
                await self._remove(this, rest)
            held = await self._held()
            this.idle = idle_times(held, self._parts)
            old = expired(held, this.idle, limits.max_age)
            for blob in old:
                await self._drop(this, blob, "unused")
            went = {blob.digest for blob in old}
            if this.need > 0:
                await self._free(this, in_order([b for b in held if b.digest not in went], this.idle))
            tags = 0 if dry_run else await store.trim_tags(TAGS_KEPT, limits.max_age)
            return self._told(this, tags, await store.space(), max(incoming, at_least))

    async def _relieve(self) -> bool:
        """A write found the disk full: `p2pd.ports.store.MakeRoom`."""
        asked_at = trio.current_time()
        if asked_at - self._hopeless_at < HOPELESS_FOR:
            return False
        with trio.move_on_after(RELIEF_DEADLINE):
            try:
                async with self._lock:
                    pass  # one that is under way may be all that is needed
                if self._freed_at < asked_at:
                    await self.collect(at_least=RELIEF)
            except P2pdError as error:
                log.warning("store.not_collected", reason=str(error))
        if self._freed_at >= asked_at:
            return True
        self._hopeless_at = trio.current_time()
        return False

    async def _lacking(self, incoming: int) -> bool:
        space = await self._store.space()
        return shortfall(self._limits, self._store.stock(), space, self._leftover_bytes, incoming) > 0

    async def _leftovers(self) -> list[Leftover]:
        loaded = self._shelf.loaded if self._shelf is not None else set()
        return [
            rest
            for rest in await self._store.leftovers()
            if rest.segment is None or (rest.digest, rest.segment) not in loaded
        ]

    async def _held(self) -> list[Stored]:
        """What is held; loaded in the swarm engine is in use too. Learns what manifests name."""
        known = self._store.stock().held
        self._parts = {blob.digest: p for blob in known if (p := self._parts.get(blob.digest)) is not None}
        for blob in known:
            if blob.size <= SMALL_BLOB and blob.digest not in self._parts:
                body = await self._store.read(blob.digest, is_use=False)
                is_object = body is not None and body[:64].lstrip()[:1] == b"{"
                names = (each.digest for each in referenced(body)) if body is not None and is_object else ()
                self._parts[blob.digest] = frozenset(names)
        loaded = {key[0] for key in self._shelf.loaded} if self._shelf is not None else set()
        return [
            Stored(blob.digest, blob.size, blob.idle, blob.in_use or blob.digest in loaded)
            for blob in self._store.stock().held
        ]

    async def _free(self, this: _Round, candidates: Sequence[Stored]) -> None:
        """Let go until enough went: first what the node's container runtime holds too.

        Then of the longest unused those that others hold on to, what others have too, the last copies, and in
        the end manifests and the like.
        """
        candidates = await self._free_twins(this, candidates)
        for start in range(0, len(candidates), ASKED_FIRST):
            group = candidates[start : start + ASKED_FIRST]
            large, tiny = [b for b in group if not is_tiny(b)], [b for b in group if is_tiny(b)]
            shared, sole = await self._free_spare(this, large)
            await self._free_shared(this, shared)
            for reason, blobs in (("last", sole), ("tiny", tiny)):
                for blob in blobs:
                    if this.need > 0:
                        await self._drop(this, blob, reason)
            if this.need <= 0:
                return

    async def _free_twins(self, this: _Round, blobs: Sequence[Stored]) -> list[Stored]:
        """Let go what is served from the runtime's file afterwards; gives the others."""
        others: list[Stored] = []
        give_up = trio.current_time() + TWIN
        for blob in blobs:
            left = give_up - trio.current_time()
            is_worth_a_look = this.need > 0 and left > 0 and not is_tiny(blob)
            if is_worth_a_look and await self._store.has_twin(blob.digest, left):
                await self._drop(this, blob, "twin")
            else:
                others.append(blob)
        return others

    async def _free_spare(self, this: _Round, blobs: Sequence[Stored]) -> tuple[list[Stored], list[Stored]]:
        """Let go what better ranked nodes hold on to; gives what others have too, and what they have not."""
        shared: list[Stored] = []
        sole: list[Stored] = []
        for at in range(0, len(blobs), AT_A_TIME):
            part = blobs[at : at + AT_A_TIME]
            if this.need <= 0:
                break
            stands = await self._copies.standings([blob.digest for blob in part])
            for blob in part:
                match stands[blob.digest]:
                    case Standing.SOLE:
                        sole.append(blob)
                    case Standing.SHARED:
                        shared.append(blob)
                    case _ if this.need > 0 and (this.dry_run or await self._copies.is_spare(blob.digest)):
                        await self._drop(this, blob, "spare")
        return shared, sole

    async def _free_shared(self, this: _Round, blobs: Sequence[Stored]) -> None:
        chosen, size = [], 0
        for blob in blobs:
            if size < this.need:
                chosen.append(blob)
                size += blob.size
        if not chosen:
            return
        async with AsyncExitStack() as stack:
            digests = {blob.digest for blob in chosen}
            if not this.dry_run:
                digests = await stack.enter_async_context(self._copies.handing_over(digests))
                # That took seconds: somebody may have begun to read one, or to fetch it from here.
                digests -= {blob.digest for blob in await self._held() if blob.in_use}
            for blob in chosen:
                if blob.digest in digests:
                    await self._drop(this, blob, "shared")

    async def _drop(self, this: _Round, blob: Stored, reason: str) -> None:
        if not this.dry_run:
            try:
                await self._store.drop(blob.digest)
            except StoreError as error:
                log.warning("blob.delete_fails", digest=str(blob.digest), reason=str(error))
                return
        self._went(this, Gone(str(blob.digest), blob.size, this.idle[blob.digest], reason))

    async def _remove(self, this: _Round, rest: Leftover) -> None:
        if not this.dry_run:
            try:
                if rest.segment is not None and self._shelf is not None:
                    await self._shelf.discard(rest.digest, rest.segment)
                else:
                    await self._store.remove(rest)
            except StoreError as error:
                log.warning("blob.delete_fails", name=rest.name, reason=str(error))
                return
            self._leftover_bytes -= rest.size
        self._went(this, Gone(rest.name, rest.size, rest.idle, "abandoned"))

    def _went(self, this: _Round, gone: Gone) -> None:
        this.note(gone)
        if not this.dry_run:
            self._freed_at = trio.current_time()
            self._on_gone(gone.reason, gone.size)
            log.debug("store.lets_go", name=gone.name, bytes=gone.size, reason=gone.reason)

    def _told(self, this: _Round, tags: int, space: DiskSpace, wanted: int) -> Collected:
        held_bytes = sum(blob.size for blob in self._store.stock().held)
        missing = max(0, this.need)
        if not this.dry_run:
            if this.gone:
                log.info("store.collected", gone=len(this.gone), bytes=this.freed, held=held_bytes)
            if missing and self._lacked is None:
                log.warning(
                    "store.no_room",
                    missing=missing,
                    free=space.free,
                    held=held_bytes,
                    reason="all that may go is gone; free space on that disk, or change [store]",
                )
            if missing and (self._lacked is None or wanted < self._lacked):
                self._lacked = wanted
            elif not missing and self._lacked is not None and wanted >= self._lacked:
                self._lacked = None
        return Collected(
            this.gone, this.freed, missing, tags, held_bytes, space.free, space.total, this.dry_run
        )


def _no_room(digest: Digest, size: int, lacking: int) -> StoreFull:
    return StoreFull(f"no room for {digest} ({size} bytes): {lacking} more must be freed on that disk")
