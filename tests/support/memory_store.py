"""`p2pd.ports.store.Store` in memory; only staged segments are files, as the swarm engine needs them."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from weakref import WeakSet

import trio

from p2pd.model.errors import P2pdError, StoreError, StoreFull, Unavailable, WrongContent
from p2pd.model.layout import MANIFEST_LIMIT, Layout, SegmentMeta
from p2pd.model.listing import ListingKey
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.model.stock import DiskSpace, Leftover, Stock, Stored
from p2pd.ports.store import Hasher, ListingRecord, MakeRoom, TagRecord

_CHUNK = 1024 * 1024


def meta_of(digest: Digest, body: bytes, size: int, index: int) -> SegmentMeta | None:
    """Piece hashes of one segment of a blob of `size` bytes that begins with `body`."""
    layout = Layout(size)
    if not 0 <= index < layout.segment_count:
        return None
    segment = layout.segment(index)
    if segment.offset + segment.length > len(body):
        return None
    stripes = [layout.stripe(number) for number in layout.stripes_of(index)]
    hashes = b"".join(hashlib.sha1(body[stripe.start : stripe.stop]).digest() for stripe in stripes)
    return SegmentMeta(digest, size, index, hashes)


class MemoryBlob:
    def __init__(self, body: bytes) -> None:
        self.body = body

    @property
    def size(self) -> int:
        return len(self.body)

    async def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        stop = min(stop, self.size)
        for position in range(start, stop, _CHUNK):
            await trio.lowlevel.checkpoint()
            yield self.body[position : min(position + _CHUNK, stop)]


class MemoryPartial:
    def __init__(self, store: MemoryStore, digest: Digest, size: int, body: bytearray) -> None:
        self._store, self._digest, self._size = store, digest, size
        self._body = body
        self._error: P2pdError | None = None
        self._is_open, self._committed = True, False
        self._held_at: int | None = None
        self._growth = trio.lowlevel.ParkingLot()

    @property
    def digest(self) -> Digest:
        return self._digest

    @property
    def size(self) -> int:
        return self._size

    @property
    def frontier(self) -> int:
        return len(self._body)

    async def resume(self) -> bool:
        await trio.sleep(self._store.resume_s)
        self._check_writable()
        return False

    async def append(self, data: bytes) -> None:
        self._check_writable()
        if len(data) > self._size - len(self._body):
            raise WrongContent(f"{self._digest}: more than the announced {self._size} bytes came")
        await self._store.find_room(len(data))
        self._body += data
        self._growth.unpark_all()

    async def append_segment(self, staged: Path, meta: SegmentMeta, pieces: int | None = None) -> None:
        self._check_writable()
        if (meta.digest, meta.blob_size) != (self._digest, self._size) or not meta.is_consistent:
            raise StoreError("metadata does not fit")
        segment = meta.segment
        length = segment.length if pieces is None else min(segment.length, pieces * segment.piece_length)
        if not segment.offset <= len(self._body) < segment.offset + length:
            raise StoreError("the segment is not next")
        # Not in a thread: virtual time would go on meanwhile.
        await trio.lowlevel.checkpoint()
        try:
            data = staged.read_bytes()  # noqa: ASYNC240
        except OSError as error:
            raise StoreError(f"cannot read {staged}") from error
        if len(data) < length:
            raise StoreError("the staged segment is too short")
        await self.append(data[len(self._body) - segment.offset : length])

    def hash_so_far(self) -> Hasher:
        return hashlib.sha256(self._body)

    def segment_meta(self, index: int) -> SegmentMeta | None:
        return meta_of(self._digest, bytes(self._body), self._size, index)

    async def commit(self) -> None:
        self._check_writable()
        if len(self._body) < self._size:
            raise StoreError(f"{self._digest}: only {len(self._body)} of {self._size} bytes are there")
        await trio.lowlevel.checkpoint()
        if hashlib.sha256(self._body).hexdigest() != self._digest.hex:
            wrong = WrongContent(f"{self._digest}: wrong bytes")
            self.fail(wrong)
            del self._store.partial_bodies[self._digest, self._size]
            raise wrong
        self._committed = True
        del self._store.partial_bodies[self._digest, self._size]
        self._store.blobs[self._digest] = bytes(self._body)
        self._store.used_at[self._digest] = trio.current_time()
        self._growth.unpark_all()

    def hold_back(self, on: bool) -> None:
        if on and self._held_at is None:
            self._held_at = self._readable()
        elif not on:
            self._held_at = None
            self._growth.unpark_all()

    def fail(self, error: P2pdError) -> None:
        if self._error is None and not self._committed:
            self._error = error
            self._growth.unpark_all()

    async def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        stop = min(stop, self._size)
        position = start
        while position < stop:
            limit = min(self._readable(), stop)
            if self._error is not None and (position >= limit or isinstance(self._error, WrongContent)):
                raise copy.copy(self._error) from self._error
            if position >= limit:
                await self._growth.park()
                continue
            data = bytes(self._body[position : min(limit, position + _CHUNK)])
            await trio.lowlevel.checkpoint()
            yield data
            position += len(data)

    async def aclose(self) -> None:
        if self._is_open:
            self._is_open = False
            self.fail(Unavailable(f"the transfer of {self._digest} was stopped"))
            self._store.partials.pop(self._digest, None)
            if isinstance(self._error, WrongContent):
                self._store.partial_bodies.pop((self._digest, self._size), None)

    def _check_writable(self) -> None:
        if not self._is_open or self._committed:
            raise StoreError(f"{self._digest}: its assembly was closed")

    def _readable(self) -> int:
        if self._committed or self._size == 0:
            return self._size
        layout = Layout(self._size)
        limit = min(len(self._body), layout.stripe(layout.stripe_count - 1).start)
        return limit if self._held_at is None else min(limit, self._held_at)


class MemoryStore:
    """`blobs` and `partial_bodies` are open to tests, which may rot or fill them.

    `capacity`: bytes of the disk, which is this store's alone. `resume_s`: how long hashing again takes.
    `twins`: what the container runtime holds too.
    """

    def __init__(self, staging: Path) -> None:
        self.staging = staging
        self.capacity = 1 << 40
        self.resume_s = 0.0
        self.used_at: dict[Digest, float] = {}
        self.readers: WeakSet[MemoryBlob] = WeakSet()
        self._make_room: MakeRoom | None = None
        self.blobs: dict[Digest, bytes] = {}
        self.partial_bodies: dict[tuple[Digest, int], bytearray] = {}
        self.twins: set[Digest] = set()
        self.partials: dict[Digest, MemoryPartial] = {}
        self.listings: dict[ListingKey, ListingRecord] = {}
        self.tags: dict[tuple[Repository, Tag], TagRecord] = {}

    def size_of(self, digest: Digest) -> int | None:
        body = self.blobs.get(digest)
        return None if body is None else len(body)

    async def look(self, digest: Digest, within: float, largest: int | None = None) -> int | None:
        await trio.lowlevel.checkpoint()
        return self.size_of(digest)

    async def has_twin(self, digest: Digest, within: float) -> bool:
        await trio.lowlevel.checkpoint()
        return digest in self.twins and digest in self.blobs

    def held(self) -> Iterator[tuple[Digest, int]]:
        return iter([(digest, len(body)) for digest, body in self.blobs.items()])

    async def open(self, digest: Digest, *, is_use: bool = True) -> MemoryBlob | None:
        await trio.lowlevel.checkpoint()
        body = self.blobs.get(digest)
        if body is None:
            return None
        if is_use:
            self.used_at[digest] = trio.current_time()
        blob = MemoryBlob(body)
        self.readers.add(blob)
        return blob

    async def read(self, digest: Digest, *, is_use: bool = True) -> bytes | None:
        await trio.lowlevel.checkpoint()
        if is_use:
            self.used_at[digest] = trio.current_time()
        body = self.blobs.get(digest)
        if body is None or len(body) > MANIFEST_LIMIT:
            return None
        if hashlib.sha256(body).hexdigest() != digest.hex:
            del self.blobs[digest]
            return None
        return body

    async def write(self, digest: Digest, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != digest.hex:
            raise WrongContent(f"{len(body)} bytes are not {digest}")
        await self.find_room(len(body))
        self.blobs[digest] = body
        self.used_at[digest] = trio.current_time()

    async def begin(self, digest: Digest, size: int, *, resume: bool = True) -> MemoryPartial:
        if size < 0:
            raise WrongContent(f"{digest}: a size of {size} bytes was announced")
        if digest in self.partials:
            raise StoreError(f"{digest} is being assembled already")
        await trio.lowlevel.checkpoint()
        body = self.partial_bodies.setdefault((digest, size), bytearray())
        if len(body) < size:
            del body[len(body) - len(body) % Layout(size).piece_length :]
        self.partials[digest] = MemoryPartial(self, digest, size, body)
        return self.partials[digest]

    def staged_path(self, digest: Digest, index: int) -> Path:
        return self.staging / f"{digest.hex}.{index}"

    async def own_staged(self, digest: Digest, index: int) -> Path:
        return self.staged_path(digest, index)

    async def staged(self, digest: Digest) -> frozenset[int]:
        await trio.lowlevel.checkpoint()
        return frozenset(int(path.name.split(".")[1]) for path in self.staging.glob(f"{digest.hex}.*"))

    async def segment_meta(self, digest: Digest, index: int) -> SegmentMeta | None:
        await trio.lowlevel.checkpoint()
        body = self.blobs.get(digest)
        return None if body is None else meta_of(digest, body, len(body), index)

    async def stage(self, digest: Digest, index: int) -> Path | None:
        await trio.lowlevel.checkpoint()
        body, size = self.blobs.get(digest), self.size_of(digest)
        if body is None and (partial := self.partials.get(digest)) is not None:
            size = partial.size
            body = bytes(self.partial_bodies[digest, size])
        if body is None or size is None or meta_of(digest, body, size, index) is None:
            return None
        segment = Layout(size).segment(index)
        path = self.staged_path(digest, index)
        path.write_bytes(body[segment.offset : segment.offset + segment.length])
        return path

    async def unstage(self, digest: Digest, index: int) -> None:
        await trio.lowlevel.checkpoint()
        self.staged_path(digest, index).unlink(missing_ok=True)

    async def drop(self, digest: Digest) -> None:
        await trio.lowlevel.checkpoint()
        self.blobs.pop(digest, None)

    async def tag(self, repository: Repository, tag: Tag) -> TagRecord | None:
        await trio.lowlevel.checkpoint()
        return self.tags.get((repository, tag))

    async def all_tags(self) -> list[tuple[Repository, Tag, TagRecord]]:
        await trio.lowlevel.checkpoint()
        return [(repository, tag, record) for (repository, tag), record in self.tags.items()]

    async def put_tag(self, repository: Repository, tag: Tag, record: TagRecord) -> None:
        await trio.lowlevel.checkpoint()
        self.tags[repository, tag] = record

    async def listing(self, key: ListingKey) -> ListingRecord | None:
        await trio.lowlevel.checkpoint()
        return self.listings.get(key)

    async def put_listing(self, key: ListingKey, record: ListingRecord) -> None:
        await trio.lowlevel.checkpoint()
        self.listings[key] = record

    # Room

    def stock(self) -> Stock:
        now, reading = trio.current_time(), {blob.body for blob in self.readers}
        held = tuple(
            Stored(digest, len(body), now - self.used_at.get(digest, now), body in reading)
            for digest, body in self.blobs.items()
        )
        under_way = [partial for digest, partial in self.partials.items() if digest not in self.blobs]
        pending = sum(partial.size - partial.frontier for partial in under_way)
        return Stock(held, sum(partial.size for partial in under_way), pending)

    async def leftovers(self) -> list[Leftover]:
        await trio.lowlevel.checkpoint()
        return [
            Leftover(f"partial/{digest.hex}.{size}", digest, None, len(body), 0.0)
            for (digest, size), body in self.partial_bodies.items()
            if digest not in self.partials
        ]

    async def remove(self, leftover: Leftover) -> None:
        await trio.lowlevel.checkpoint()
        if leftover.digest not in self.partials:
            for key in [key for key in self.partial_bodies if key[0] == leftover.digest]:
                del self.partial_bodies[key]

    async def space(self) -> DiskSpace:
        await trio.lowlevel.checkpoint()
        return DiskSpace(self.capacity - self._used_bytes(), self.capacity)

    async def trim_tags(self, keep: int, max_age: float) -> int:
        await trio.lowlevel.checkpoint()
        newest = sorted(self.tags, key=lambda key: self.tags[key].confirmed_at, reverse=True)
        now = time.time()
        gone = [
            key
            for rank, key in enumerate(newest)
            if rank >= keep or (max_age and now - self.tags[key].confirmed_at > max_age)
        ]
        for key in gone:
            del self.tags[key]
        return len(gone)

    def on_full(self, make_room: MakeRoom) -> None:
        self._make_room = make_room

    async def find_room(self, size: int) -> None:
        """As a write of so many bytes finds it."""
        await trio.lowlevel.checkpoint()
        if self._used_bytes() + size > self.capacity and self._make_room is not None:
            await self._make_room()
        if self._used_bytes() + size > self.capacity:
            raise StoreFull("the disk is full")

    def _used_bytes(self) -> int:
        return sum(map(len, self.blobs.values())) + sum(map(len, self.partial_bodies.values()))
