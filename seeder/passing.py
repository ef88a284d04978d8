"""Blobs that go through the seeder without being kept, where its disk takes no more writes.

Each request is one to the origin: dearer than a kept blob, but no pull fails that worked without a seeder.
A whole blob is checked as ever: its last bytes leave only when the sha256 is right. Of a range nobody here
can know whether it is right; who asks for ranges (nodes, runtimes) checks the whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog
import trio

from p2pd.app.bounded import Bounded
from p2pd.app.flights import Flights
from p2pd.app.unkept import Following, checked
from p2pd.model.errors import NotFound, RateLimited, StoreError, Unavailable, WrongContent
from p2pd.model.layout import SHA1_BYTES, Layout, SegmentMeta
from p2pd.model.reference import Digest, Repository
from p2pd.ports.content import Blob
from p2pd.ports.origin import Origin
from p2pd.ports.store import Hasher, Partial
from seeder.metrics import SeederMetrics

__all__ = ["Passing"]

log = structlog.get_logger()

AT_ONCE = 64
"""Answers of an origin that are passed on at a time; more wait in line."""

HASHES_FOR = 60.0
"""Seconds for which the piece hashes of a segment are told again: nothing here shows whether they are right,
and who has wrong ones can take no right bytes."""

_REMEMBERED = 4096
_TRIES = 3
_PAUSE = 0.5


Part = tuple[Repository, Digest, int, int]


@dataclass(slots=True)
class _Hashes:
    """Of the first pieces of a segment, until `made_at` is set."""

    sha1s: bytearray = field(default_factory=bytearray)
    made_at: float | None = None


class Passing:
    """Makes blobs that are passed through, or that are once their transfer fails for want of disk."""

    def __init__(self, origin: Origin, metrics: SeederMetrics) -> None:
        self._origin = origin
        self._metrics = metrics
        self._slots = trio.Semaphore(AT_ONCE)
        self._sizes: Bounded[tuple[Repository, Digest], int] = Bounded(_REMEMBERED)
        self._told: Bounded[Digest, None] = Bounded(_REMEMBERED)
        self._hashes: Bounded[Part, _Hashes] = Bounded(_REMEMBERED)
        self._hashing: Flights[Part, SegmentMeta] = Flights()

    async def blob(self, repository: Repository, digest: Digest, reason: StoreError) -> Blob:
        """The blob as its origin gives it. Raises P2pdError."""
        return _Through(self, repository, digest, await self._size(repository, digest, reason))

    def follow(self, repository: Repository, partial: Partial) -> Blob:
        """What `partial` gives, and where it ends because of the disk, the rest all the same."""
        about = (repository, partial.digest, partial.size)

        def rest(start: int, position: int, stop: int, error: StoreError) -> AsyncGenerator[bytes, None]:
            is_whole = start == 0 and stop == partial.size
            # Of a whole blob the rest can be checked only from where the hash of the assembly stands.
            if is_whole and position != partial.frontier:
                raise error
            self.tell(partial.digest, partial.size, error)
            if is_whole:
                return self.checked(*about, position, partial.hash_so_far())
            return self.bytes_of(*about, (position, stop))

        return Following(partial, rest)

    async def segment_meta(
        self, repository: Repository, digest: Digest, size: int, index: int, reason: StoreError
    ) -> SegmentMeta:
        """Piece hashes of a segment that is read for them and not kept. Cancelled, it goes on from there."""
        actual = await self._size(repository, digest, reason)
        if actual != size:
            raise NotFound(f"{digest} has {actual} bytes, not {size}")

        async def hash_it() -> SegmentMeta:
            return await self._hash(repository, digest, size, index)

        return await self._hashing.join((repository, digest, size, index), hash_it)

    async def bytes_of(
        self, repository: Repository, digest: Digest, size: int, span: tuple[int, int]
    ) -> AsyncGenerator[bytes, None]:
        """The bytes [start, stop), unchecked, through a few breaks of the origin. Raises OriginFault."""
        position, stop = span
        failures = 0
        while position < stop:
            try:
                async with self._slots, self._origin.open_blob(repository, digest, position, stop) as stream:
                    if stream.size != size or stream.start > position:
                        raise WrongContent(f"{repository} answers for {digest} with another size or range")
                    skip = position - stream.start
                    async for chunk in stream.chunks:
                        data = chunk[skip : skip + stop - position]
                        skip = max(0, skip - len(chunk))
                        if data:
                            failures = 0
                            position += len(data)
                            self._metrics.origin_bytes.labels(repository.registry).inc(len(data))
                            yield data
                        if position == stop:
                            return
                raise Unavailable(f"the origin of {digest} sent less than it was asked for")
            except (Unavailable, RateLimited) as error:
                failures += 1
                self._metrics.origin_failures.labels(repository.registry).inc()
                if failures == _TRIES:
                    raise
                log.debug("blob.passing_retries", digest=str(digest), offset=position, reason=str(error))
            await trio.sleep(_PAUSE)

    async def checked(
        self, repository: Repository, digest: Digest, size: int, position: int, hasher: Hasher
    ) -> AsyncGenerator[bytes, None]:
        """Bytes [position, size), the last ones only if all are right; `hasher` has hashed [0, position)."""
        source = self.bytes_of(repository, digest, size, (position, size))

        def wrong() -> WrongContent:
            return WrongContent(f"{repository} gives other bytes than {digest}")

        async with aclosing(checked(source, digest, hasher, wrong)) as chunks:
            async for chunk in chunks:
                yield chunk

    def tell(self, digest: Digest, size: int, reason: StoreError) -> None:
        """Log that a blob is passed through: once, not for each of its parts."""
        if digest not in self._told:
            log.warning("blob.passed_through", digest=str(digest), size=size, reason=str(reason))
        self._told[digest] = None

    async def _size(self, repository: Repository, digest: Digest, reason: StoreError) -> int:
        known = self._sizes.get((repository, digest))
        if known is None:
            known = await self._origin.blob_size(repository, digest)
        self.tell(digest, known, reason)
        self._sizes[repository, digest] = known
        return known

    async def _hash(self, repository: Repository, digest: Digest, size: int, index: int) -> SegmentMeta:
        segment = Layout(size).segment(index)
        hashes = self._hashes_of((repository, digest, size, index))
        start = segment.offset + len(hashes.sha1s) // SHA1_BYTES * segment.piece_length
        stop = segment.stop
        piece = bytearray()
        async with aclosing(self.bytes_of(repository, digest, size, (start, stop))) as chunks:
            async for chunk in chunks:
                piece += chunk
                while len(piece) >= segment.piece_length:
                    whole, piece = piece[: segment.piece_length], piece[segment.piece_length :]
                    hashes.sha1s += await trio.to_thread.run_sync(_sha1, whole)
        if piece:
            hashes.sha1s += await trio.to_thread.run_sync(_sha1, piece)
        if hashes.made_at is None:
            hashes.made_at = trio.current_time()
        return SegmentMeta(digest, size, index, bytes(hashes.sha1s))

    def _hashes_of(self, part: Part) -> _Hashes:
        """What is known by now. By repository: the origin of one must not speak for another."""
        known = self._hashes.get(part)
        if known is None or (known.made_at is not None and trio.current_time() - known.made_at > HASHES_FOR):
            known = _Hashes()
        self._hashes[part] = known
        return known


def _sha1(data: bytearray) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


class _Through:
    def __init__(self, passing: Passing, repository: Repository, digest: Digest, size: int) -> None:
        self._passing, self._repository = passing, repository
        self._digest, self._size = digest, size

    @property
    def size(self) -> int:
        return self._size

    async def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        passing, size = self._passing, self._size
        if start == 0 and stop >= size:
            source = passing.checked(self._repository, self._digest, size, 0, hashlib.sha256())
        else:
            source = passing.bytes_of(self._repository, self._digest, size, (start, stop))
        async with aclosing(source) as chunks:
            async for chunk in chunks:
                yield chunk
