"""The WAN rungs of the ladder: any of several seeders, then the origin itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
import trio

from p2pd.app.metrics import Metrics
from p2pd.decide.health import SourceHealth
from p2pd.decide.plan import Way
from p2pd.io.seeder_client import SEGMENT_WAIT
from p2pd.model.content import Descriptor, Manifest, StaleTag
from p2pd.model.errors import Denied, NotFound, OriginFault, RateLimited, Unavailable, WrongContent
from p2pd.model.layout import SegmentMeta
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.origin import BlobStream, Origin, SeederOrigin

__all__ = ["Wan"]

log = structlog.get_logger()
T = TypeVar("T")

SEEDER_DEADLINE = 5.0
"""Seconds a seeder has for an answer, so that the origin still has its turn before a client's deadline."""

ORIGIN_DEADLINE = 8.0

_GATHER = 48 * 1024
_GATHER_BOUNDS = (0.01, 0.1)
"""On a slow link a read returns a packet or two, and costs as much CPU as one of 64 KiB: let the
kernel gather bytes for a moment after each short one. Its buffers hold far more than comes then."""


class _Rung:
    def __init__(self, name: str, source: Origin, deadline: float) -> None:
        self.name = name
        self.source = source
        self.deadline = deadline
        self.health = SourceHealth()


class Wan:
    """Asks the highest rung that is up, steps down when it fails, and remembers which ones do."""

    def __init__(
        self, seeders: Sequence[tuple[str, SeederOrigin]], origin: Origin | None, metrics: Metrics
    ) -> None:
        self._seeders = [_Rung(name, seeder, SEEDER_DEADLINE) for name, seeder in seeders]
        self._seeder_sources = {
            rung.name: seeder for rung, (_, seeder) in zip(self._seeders, seeders, strict=True)
        }
        self._origin = None if origin is None else _Rung("origin", origin, ORIGIN_DEADLINE)
        self._metrics = metrics

    def way(self) -> Way:
        """By which rung content can be had now."""
        now = trio.current_time()
        if any(rung.health.is_up(now) for rung in self._seeders):
            return Way.SEEDER
        return self.way_without_seeder()

    def way_without_seeder(self) -> Way:
        """The same for content that the seeders refuse to serve."""
        if self._origin is not None and self._origin.health.is_up(trio.current_time()):
            return Way.ORIGIN
        return Way.NONE

    async def manifest(self, repository: Repository, reference: Digest | Tag) -> Manifest:
        return await self._climb(lambda source: source.manifest(repository, reference))

    async def resolve(self, repository: Repository, tag: Tag) -> Descriptor:
        return await self._climb(lambda source: source.resolve(repository, tag))

    async def blob_size(self, repository: Repository, digest: Digest) -> int:
        return await self._climb(lambda source: source.blob_size(repository, digest))

    async def tags(self, repository: Repository, query: str) -> bytes:
        return await self._climb(lambda source: source.tags(repository, query))

    async def referrers(self, repository: Repository, digest: Digest) -> bytes:
        return await self._climb(lambda source: source.referrers(repository, digest))

    async def small_blob(self, repository: Repository, digest: Digest, limit: int) -> bytes:
        """A whole blob of at most `limit` bytes, not verified yet."""

        async def read(source: Origin) -> bytes:
            async with source.open_blob(repository, digest) as stream:
                if stream.size > limit:
                    raise WrongContent(f"{digest} has {stream.size} bytes, more than the {limit} expected")
                return b"".join([chunk async for chunk in stream.chunks])

        return await self._climb(read)

    async def segment(self, repository: Repository, digest: Digest, size: int, index: int) -> SegmentMeta:
        """Piece hashes from a seeder, however long it takes to have them."""
        while True:
            rung, asked_at = self._first_seeder(), trio.current_time()
            try:
                meta = await self._seeder_sources[rung.name].segment(repository, digest, size, index)
            except Unavailable as error:
                if trio.current_time() - asked_at < SEGMENT_WAIT / 2:
                    # It did not wait for bytes to come; thought to be up, it would keep peers unheard.
                    self._note_failure(rung, error)
                    raise
                log.debug("wan.segment_waits", digest=str(digest), segment=index, reason=str(error))
                await trio.sleep(0.5)
                continue
            rung.health.succeeded()
            return meta

    async def read_range(
        self,
        way: Way,
        repository: Repository,
        digest: Digest,
        size: int,
        span: tuple[int, int],
        on_bytes: Callable[[int], None],
    ) -> bytes:
        """Bytes [start, stop) of a blob by one way; `on_bytes(0)` is called when headers are there."""
        start, stop = span
        rung = self._first_seeder() if way is Way.SEEDER else self._need_origin()
        data = bytearray()
        async with self._counted(rung), rung.source.open_blob(repository, digest, start, stop) as stream:
            if stream.size != size:
                raise WrongContent(f"{rung.name} says that {digest} has {stream.size} bytes, not {size}")
            on_bytes(0)
            skip, began, came = start - stream.start, trio.current_time(), 0
            async for chunk in stream.chunks:
                on_bytes(len(chunk))
                came += len(chunk)
                data += chunk[skip:] if skip else chunk
                skip = max(0, skip - len(chunk))
                missing = stop - start - len(data)
                if missing <= 0:
                    break
                if len(chunk) < _GATHER and missing > len(chunk):
                    await trio.sleep(_gather_for(missing, (trio.current_time() - began) / came))
        self._metrics.wan_bytes.labels(rung.name).inc(len(data))
        return bytes(data[: stop - start])

    @asynccontextmanager
    async def origin_stream(
        self, repository: Repository, digest: Digest, start: int, stop: int | None
    ) -> AsyncIterator[BlobStream]:
        """A plain stream from the origin, for the node that leads where no seeder is."""
        rung = self._need_origin()
        async with self._counted(rung), rung.source.open_blob(repository, digest, start, stop) as stream:
            yield stream

    def _first_seeder(self) -> _Rung:
        now = trio.current_time()
        for rung in self._seeders:
            if rung.health.is_up(now):
                return rung
        raise Unavailable("no seeder answers: check [wan] seeders, or wait for one to come back")

    def _need_origin(self) -> _Rung:
        if self._origin is None:
            raise Unavailable("going to origins directly is switched off ([wan] direct = false)")
        return self._origin

    async def _climb(self, ask: Callable[[Origin], Awaitable[T]]) -> T:
        now = trio.current_time()
        rungs = [rung for rung in self._seeders if rung.health.is_up(now)]
        if self._origin is not None:
            rungs.append(self._origin)
        refused: OriginFault | None = None
        failed: OriginFault | None = None
        stale: StaleTag | None = None
        for rung in rungs:
            try:
                async with self._counted(rung):
                    return await _in_time(ask, rung)
            except (NotFound, Denied) as error:
                refused = refused or error
            except StaleTag as error:
                stale = stale or error
            except OriginFault as error:
                failed = error
        raise (
            refused
            or stale
            or failed
            or Unavailable("neither a seeder nor an origin can be reached: is the WAN up?")
        )

    @asynccontextmanager
    async def _counted(self, rung: _Rung) -> AsyncIterator[None]:
        """Keep the rung's health and say when it steps down or up."""
        try:
            yield
        except (NotFound, Denied, WrongContent, StaleTag):
            raise  # It answered: one bad image must not cost the others their source.
        except OriginFault as error:
            self._note_failure(rung, error)
            raise
        if rung.health.succeeded():
            self._metrics.ladder_steps.labels(rung.name, "up").inc()
            log.info("ladder.up", rung=rung.name)

    def _note_failure(self, rung: _Rung, error: OriginFault) -> None:
        retry_after = error.retry_after if isinstance(error, RateLimited) else None
        self._metrics.wan_failures.labels(rung.name).inc()
        if rung.health.failed(trio.current_time(), retry_after):
            self._metrics.ladder_steps.labels(rung.name, "down").inc()
            log.warning("ladder.down", rung=rung.name, reason=str(error))


def _gather_for(missing: int, seconds_a_byte: float) -> float:
    """Seconds until the kernel has about `_GATHER` bytes, or what is missing."""
    low, high = _GATHER_BOUNDS
    return min(max(low, min(_GATHER, missing) * seconds_a_byte), high)


async def _in_time(ask: Callable[[Origin], Awaitable[T]], rung: _Rung) -> T:
    with trio.move_on_after(rung.deadline):
        return await ask(rung.source)
    raise Unavailable(f"{rung.name} did not answer within {rung.deadline:.0f} s")
