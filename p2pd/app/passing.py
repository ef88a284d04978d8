"""Blobs that go to a client without being kept, where the disk takes no more writes.

They come in order from a peer that holds the blob, else over the WAN, and are checked as ever: the last
bytes leave only when the whole sha256 is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog
import trio

from p2pd.app.bounded import Bounded
from p2pd.app.everyone import ask_everyone
from p2pd.app.site import Site
from p2pd.app.unkept import Following, checked
from p2pd.app.wan import Reader
from p2pd.decide.plan import Way
from p2pd.model.errors import (
    Denied,
    NotFound,
    OriginFault,
    P2pdError,
    StoreError,
    Unavailable,
    WrongContent,
)
from p2pd.model.layout import MIB
from p2pd.model.messages import READ_LIMIT, Query, QueryReply, Read, ReadReply, Reply
from p2pd.model.reference import Digest, Repository
from p2pd.ports.content import Blob
from p2pd.ports.store import Hasher, Partial

__all__ = ["Passing"]

log = structlog.get_logger()

AT_ONCE = 8
"""Blobs on their way through at a time; each takes a few MiB of memory."""

_DISTRUSTED = 4096
_PEER_BITE = MIB
_WAN_BITE = 2 * MIB
_QUERY = 0.5
_READ_DEADLINE = 3.0

PATIENCE = 6.0
"""Seconds to wait for the next bytes of peers that are fetching the blob; then they come over the WAN."""

_TRIES = 3
_PAUSE = 0.5


class Passing:
    """Makes blobs that are passed through, or that are once their transfer fails for want of disk."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._running = 0
        self._distrusted: Bounded[Digest, None] = Bounded(_DISTRUSTED)

    def blob(self, repository: Repository, digest: Digest, size: int) -> Blob:
        """From its first byte on; any other range is refused: its bytes could not be checked."""
        return _Through(self, repository, digest, size)

    def follow(self, repository: Repository, partial: Partial) -> Blob:
        """What `partial` gives, and where it ends because of the disk, the rest all the same."""

        def rest(_start: int, position: int, stop: int, error: StoreError) -> AsyncGenerator[bytes, None]:
            # Only from where the assembly ended does anybody know the hash of what went before.
            if stop < partial.size or position != partial.frontier:
                raise error
            return self.rest(repository, partial.digest, partial.size, position, partial.hash_so_far())

        return Following(partial, rest)

    async def rest(
        self, repository: Repository, digest: Digest, size: int, position: int, hasher: Hasher
    ) -> AsyncGenerator[bytes, None]:
        """Bytes [position, size) of the blob; `hasher` has hashed [0, position). Raises P2pdError."""
        if self._running >= AT_ONCE:
            raise Unavailable(
                f"{digest}: the disk is full and {AT_ONCE} blobs are being passed through already"
            )
        log.info("blob.passed_through", digest=str(digest), offset=position, size=size)

        def wrong() -> WrongContent:
            # Somebody lied, and nobody can say who: next time without peers.
            self._distrusted[digest] = None
            return WrongContent(f"{digest}: the bytes that were passed through are not it")

        self._running += 1
        try:
            source = self._bytes(repository, digest, size, position)
            async with aclosing(checked(source, digest, hasher, wrong)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._running -= 1

    async def _bytes(
        self, repository: Repository, digest: Digest, size: int, position: int
    ) -> AsyncGenerator[bytes, None]:
        moved_at, tries = trio.current_time(), 0
        while position < size:
            nodes = [] if digest in self._distrusted else await self._sources(digest, size)
            data = await self._read_any(nodes, digest, position, min(position + _PEER_BITE, size))
            if not data:
                if nodes and trio.current_time() - moved_at < PATIENCE:
                    await trio.sleep(_PAUSE)  # they are fetching it: it must not cross the WAN twice
                    continue
                try:
                    data = await self._read_wan(repository, digest, size, position)
                except (NotFound, Denied, WrongContent):
                    raise
                except OriginFault:
                    tries += 1
                    if tries == _TRIES:
                        raise
                    await trio.sleep(_PAUSE)
                    continue
            tries = 0
            yield data
            position += len(data)
            moved_at = trio.current_time()

    async def _sources(self, digest: Digest, size: int) -> list[str]:
        """Peers that hold the blob, before those that are fetching it."""
        held: list[str] = []
        wanted: list[str] = []

        def take(node: str, reply: Reply) -> None:
            if isinstance(reply, QueryReply) and size in (reply.held_size, reply.wanted_size):
                (held if reply.held_size == size else wanted).append(node)

        await ask_everyone(self._site.peers, Query(digest), _QUERY, take)
        return held + wanted

    async def _read_any(self, nodes: list[str], digest: Digest, start: int, stop: int) -> bytes:
        """From the first of `nodes` that gives anything; empty where none does."""
        for node in nodes:
            data = await self._read_peer(node, digest, start, stop)
            if data:
                return data
        return b""

    async def _read_peer(self, node: str, digest: Digest, start: int, stop: int) -> bytes:
        """As much from `start` on as the peer gives."""
        data = bytearray()
        while start + len(data) < stop:
            read = Read(digest, start + len(data), min(READ_LIMIT, stop - start - len(data)))
            try:
                reply = await self._site.peers.request(node, read, _READ_DEADLINE)
            except P2pdError:
                break
            if not isinstance(reply, ReadReply) or len(reply.data) != read.length:
                break
            data += reply.data
        self._site.metrics.lan_bytes.inc(len(data))
        return bytes(data)

    async def _read_wan(self, repository: Repository, digest: Digest, size: int, position: int) -> bytes:
        way = self._site.wan.way(repository)
        if way is Way.NONE:
            raise Unavailable(f"{digest}: no source over the WAN answers")
        span = (position, min(position + _WAN_BITE, size))
        data = await self._site.wan.read_range(
            way, repository, digest, size, span, Reader(lambda _count: None)
        )
        if not data:
            raise Unavailable(f"{digest}: an empty answer came")
        return data


class _Through:
    def __init__(self, passing: Passing, repository: Repository, digest: Digest, size: int) -> None:
        self._passing, self._repository = passing, repository
        self._digest, self._size = digest, size

    @property
    def size(self) -> int:
        return self._size

    async def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        if start or stop < self._size:
            raise Unavailable(
                f"the disk is full, and a part of {self._digest} alone cannot be checked; free some space"
            )
        rest = self._passing.rest(self._repository, self._digest, self._size, 0, hashlib.sha256())
        async with aclosing(rest) as chunks:
            async for chunk in chunks:
                yield chunk
