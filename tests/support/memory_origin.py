"""An origin in memory that counts what it gives and fails on command; also plays a seeder."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress

import trio

from p2pd.io.http import Timeouts
from p2pd.io.seeder_client import SEGMENT_WAIT
from p2pd.model.content import Descriptor, Holding, Manifest
from p2pd.model.errors import NotFound, P2pdError, Unavailable, fresh
from p2pd.model.layout import Layout, SegmentMeta
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.origin import BlobStream, SegmentAnswer
from seeder.service import ANSWER_WITHIN

__all__ = ["MemoryOrigin", "digest_of"]

CHUNK = 64 * 1024
BUFFER = 512 * 1024
"""Bytes that the kernel keeps for who does not read."""

LINE_PATIENCE = Timeouts().stall
"""Seconds without a byte for which who reads waits."""


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


class MemoryOrigin:
    """`SeederOrigin` over a dict. `fault`, when set, is raised by every call; it is set
    to Unavailable once `fault_after` bytes were given. One that `is_silent` never answers for a
    segment or a blob, and says so to nobody; one that `hangs_for` seconds does not answer for so long, and
    has then failed. A blob in `line` it has yet to get itself: headers come by `ANSWER_WITHIN`, bytes then;
    one that `is_old` does not say so, and answers no question for hashes sooner. `hashes_after`: seconds that
    such an answer takes.

    `bytes_s` limits all streams together; `given` counts blob bytes, `asked` calls by name.
    """

    def __init__(self, bytes_s: float = float("inf")) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.tag_of: dict[str, Digest] = {}
        self.fault: P2pdError | None = None
        self.tag_fault: P2pdError | None = None
        self.fault_after: int | None = None
        self.is_silent = False
        self.hangs_for: float | None = None
        self.line: dict[Digest, trio.Event] = {}
        self.is_old = False
        self.hashes_after = 0.0
        self.bytes_s = bytes_s
        self.given: Counter[Digest] = Counter()
        self.asked: Counter[str] = Counter()
        self._free_at = 0.0

    def put(self, data: bytes) -> Digest:
        digest = digest_of(data)
        self.blobs[digest] = data
        return digest

    async def resolve(self, repository: Repository, tag: Tag) -> Descriptor:
        self._check("resolve")
        await trio.lowlevel.checkpoint()
        if self.tag_fault is not None:
            raise fresh(self.tag_fault)
        digest = self.tag_of.get(tag.name)
        if digest is None:
            raise NotFound(f"no tag {tag}")
        return Manifest.verified(self.blobs[digest], digest).descriptor

    async def manifest(self, repository: Repository, reference: Digest | Tag) -> Manifest:
        self._check("manifest")
        await trio.lowlevel.checkpoint()
        digest = self.tag_of.get(reference.name) if isinstance(reference, Tag) else reference
        if digest is None or digest not in self.blobs:
            raise NotFound(f"no manifest {reference}")
        self.given[digest] += len(self.blobs[digest])
        return Manifest.verified(self.blobs[digest], digest)

    async def blob_size(self, repository: Repository, digest: Digest) -> int:
        self._check("blob_size")
        await trio.lowlevel.checkpoint()
        return len(self._blob(digest))

    @asynccontextmanager
    async def open_blob(
        self, repository: Repository, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncGenerator[BlobStream, None]:
        self._check("open_blob")
        await self._answer()
        with suppress(Unavailable):
            await self._turn(digest, ANSWER_WITHIN)
        data = self._blob(digest)
        stop = len(data) if stop is None else stop
        async with aclosing(self._chunks(digest, data, start, stop)) as chunks:
            yield BlobStream(len(data), start, stop, chunks, self._holding(digest))

    async def _chunks(
        self, digest: Digest, data: bytes, start: int, stop: int
    ) -> AsyncGenerator[bytes, None]:
        await self._turn(digest, LINE_PATIENCE)
        position, read_at = start, trio.current_time()
        while position < stop:
            # As from a socket: who comes back later finds more.
            since = trio.current_time() - read_at
            gathered = min(BUFFER, since * self.bytes_s) if since > 0 else 0
            chunk = data[position : min(position + max(CHUNK, int(gathered)), stop)]
            self._free_at = max(self._free_at, trio.current_time()) + len(chunk) / self.bytes_s
            await trio.sleep_until(self._free_at)
            if self.hangs_for is not None:
                await trio.sleep(self.hangs_for)
                raise Unavailable(f"nothing came after byte {position}")
            if self.fault is not None:
                raise Unavailable(f"cut off at byte {position}") from self.fault
            self.given[digest] += len(chunk)
            if self.fault_after is not None and self.given.total() >= self.fault_after:
                self.fault = Unavailable("killed")
            position, read_at = position + len(chunk), trio.current_time()
            yield chunk

    async def tags(self, repository: Repository, query: str) -> bytes:
        self._check("tags")
        await trio.lowlevel.checkpoint()
        return b'{"name":"app","tags":[]}'

    async def referrers(self, repository: Repository, digest: Digest) -> bytes:
        self._check("referrers")
        await trio.lowlevel.checkpoint()
        return b'{"schemaVersion":2,"manifests":[]}'

    async def segment(
        self, repository: Repository, digest: Digest, size: int, index: int, *, is_patient: bool = True
    ) -> SegmentAnswer:
        self._check("segment")
        await self._answer()
        await trio.sleep(self.hashes_after)
        try:
            await self._turn(digest, SEGMENT_WAIT if is_patient or self.is_old else 0)
        except Unavailable:
            if self.is_old:
                raise
            return SegmentAnswer(None, self._holding(digest))
        cut = Layout(size).segment(index)
        data = self._blob(digest)[cut.offset : cut.offset + cut.length]
        pieces = range(0, cut.length, cut.piece_length)
        hashes = b"".join(hashlib.sha1(data[at : at + cut.piece_length]).digest() for at in pieces)
        return SegmentAnswer(SegmentMeta(digest, size, index, hashes), self._holding(digest))

    def _holding(self, digest: Digest) -> Holding | None:
        if self.is_old:
            return None
        waits = digest in self.line and not self.line[digest].is_set()
        return Holding.PULLING if waits else Holding.WHOLE

    async def _answer(self) -> None:
        if self.is_silent:
            await trio.sleep_forever()
        if self.hangs_for is not None:
            await trio.sleep(self.hangs_for)
            raise Unavailable("it cannot be connected to in time")
        await trio.lowlevel.checkpoint()

    async def _turn(self, digest: Digest, within: float) -> None:
        with trio.move_on_after(within):
            if digest in self.line and not self.line[digest].is_set():
                await self.line[digest].wait()
            return
        raise Unavailable("nothing came in time")

    def _check(self, call: str) -> None:
        self.asked[call] += 1
        if self.fault is not None:
            raise fresh(self.fault)

    def _blob(self, digest: Digest) -> bytes:
        if digest not in self.blobs:
            raise NotFound(f"no blob {digest}")
        return self.blobs[digest]
