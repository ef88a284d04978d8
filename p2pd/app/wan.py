"""The WAN rungs of the ladder: any of several seeders, then the origin itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from math import inf
from typing import TypeVar

import structlog
import trio

from p2pd.app.gather import Gather
from p2pd.app.links import WanMeter
from p2pd.app.metrics import Metrics
from p2pd.decide.health import Reach, Turn
from p2pd.decide.plan import Way
from p2pd.io.seeder_client import SEGMENT_WAIT
from p2pd.model.admin import Source
from p2pd.model.content import Descriptor, Holding, Manifest
from p2pd.model.errors import Denied, NotFound, OriginFault, RateLimited, Stale, Unavailable, WrongContent
from p2pd.model.layout import SegmentMeta
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.origin import BlobStream, Origin, SeederOrigin

__all__ = ["Reader", "Wan"]

log = structlog.get_logger()
T = TypeVar("T")

SEEDER_DEADLINE = 5.0
"""Seconds a seeder has for an answer, so that the origin still has its turn before a client's deadline."""

ORIGIN_DEADLINE = 8.0


def _never() -> float:
    return -inf


def _ignore(_holding: Holding | None) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads a range of a blob: `on_bytes` is told of what comes, of 0 bytes when headers are there.

    `others_came_at`: when bytes last came of what the same source gives beside it. Where they came since the
    last of these, its silence is no failure of the source. `on_holding` is told what each answer of a seeder
    says of the blob.
    """

    on_bytes: Callable[[int], None]
    others_came_at: Callable[[], float] = _never
    on_holding: Callable[[Holding | None], None] = _ignore


class _Rung:
    """`is_origin`: no host of its own stands between this node and the registries."""

    def __init__(self, name: str, source: Origin, deadline: float, *, is_origin: bool = False) -> None:
        self.name = name
        self.source = source
        self.deadline = deadline
        self.is_origin = is_origin
        self.reach = Reach()

    def is_up(self, repository: Repository) -> bool:
        return self.reach.is_up(repository.registry, trio.current_time())


class _Attempt:
    """One request. What breaks after the answer's headers is not the fault of who sent them."""

    has_headers = False
    moved_at = inf
    """When headers or bytes last came."""


class Wan:
    """Asks the highest rung that is up, steps down when it fails, and remembers which ones do."""

    def __init__(
        self,
        seeders: Sequence[tuple[str, SeederOrigin]],
        origin: Origin | None,
        metrics: Metrics,
        meter: WanMeter | None = None,
    ) -> None:
        self._seeders = [_Rung(name, seeder, SEEDER_DEADLINE) for name, seeder in seeders]
        self._seeder_sources = {
            rung.name: seeder for rung, (_, seeder) in zip(self._seeders, seeders, strict=True)
        }
        self._origin = None if origin is None else _Rung("origin", origin, ORIGIN_DEADLINE, is_origin=True)
        self._metrics = metrics
        self._meter = meter or WanMeter()
        for rung in self._seeders:
            metrics.source_up.labels(rung.name).set(1)

    def sources(self) -> list[Source]:
        """How each of them stands, in the order in which they are asked."""
        rungs = [*self._seeders, *([self._origin] if self._origin is not None else [])]
        return [Source(rung.name, rung.reach.is_well, rung.reach.upstreams_down()) for rung in rungs]

    def way(self, repository: Repository) -> Way:
        """By which rung content of this repository can be had now."""
        if any(rung.is_up(repository) for rung in self._seeders):
            return Way.SEEDER
        return self.way_without_seeder(repository)

    def way_without_seeder(self, repository: Repository) -> Way:
        """The same for content that the seeders refuse to serve."""
        if self._origin is not None and self._origin.is_up(repository):
            return Way.ORIGIN
        return Way.NONE

    async def manifest(self, repository: Repository, reference: Digest | Tag) -> Manifest:
        return await self._climb(
            repository, lambda source: source.manifest(repository, reference), lambda found: len(found.body)
        )

    async def resolve(self, repository: Repository, tag: Tag) -> Descriptor:
        return await self._climb(repository, lambda source: source.resolve(repository, tag))

    async def blob_size(self, repository: Repository, digest: Digest) -> int:
        return await self._climb(repository, lambda source: source.blob_size(repository, digest))

    async def tags(self, repository: Repository, query: str) -> bytes:
        return await self._climb(repository, lambda source: source.tags(repository, query), len)

    async def referrers(self, repository: Repository, digest: Digest) -> bytes:
        return await self._climb(repository, lambda source: source.referrers(repository, digest), len)

    async def small_blob(self, repository: Repository, digest: Digest, limit: int) -> bytes:
        """A whole blob of at most `limit` bytes, not verified yet."""

        async def read(source: Origin) -> bytes:
            async with source.open_blob(repository, digest) as stream:
                if stream.size > limit:
                    raise WrongContent(f"{digest} has {stream.size} bytes, more than the {limit} expected")
                return b"".join([chunk async for chunk in stream.chunks])

        return await self._climb(repository, read, len)

    async def segment(
        self,
        repository: Repository,
        digest: Digest,
        size: int,
        index: int,
        on_holding: Callable[[Holding | None], None] = _ignore,
        *,
        is_patient: bool = True,
    ) -> SegmentMeta:
        """Piece hashes from a seeder, however long it takes to have them.

        `on_holding` is told what each answer says of the blob; not `is_patient`: the first one at once.
        """
        while True:
            rung, asked_at = self._first_seeder(repository), trio.current_time()
            try:
                answer = await self._seeder_sources[rung.name].segment(
                    repository, digest, size, index, is_patient=is_patient
                )
            except Unavailable as error:
                if trio.current_time() - asked_at < SEGMENT_WAIT / 2:
                    # It did not wait for bytes to come; thought to be up, it would keep peers unheard.
                    self._note_failure(rung, repository, error, beyond=error.beyond_seeder)
                    raise
                log.debug("wan.segment_waits", digest=str(digest), segment=index, reason=str(error))
                await trio.sleep(0.5)
                continue
            on_holding(answer.holding)
            if answer.meta is not None:
                self._note(rung, rung.reach.succeeded(repository.registry))
                return answer.meta
            # That it has yet to get the bytes says nothing of the registry that it gets them from.
            self._note(rung, rung.reach.answered())
            if is_patient:
                await trio.sleep(0.5)
            is_patient = True

    async def read_range(
        self,
        way: Way,
        repository: Repository,
        digest: Digest,
        size: int,
        span: tuple[int, int],
        reader: Reader,
    ) -> bytes:
        """Bytes [start, stop) of a blob by one way."""
        start, stop = span
        parts: list[bytes] = []
        while start < stop:
            part = await self._read_some(way, repository, digest, size, (start, stop), reader)
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    async def _read_some(
        self,
        way: Way,
        repository: Repository,
        digest: Digest,
        size: int,
        span: tuple[int, int],
        reader: Reader,
    ) -> bytes:
        """What one answer has of [start, stop), from `start` on: it may be less than was asked for."""
        start, stop = span
        rung = self._first_seeder(repository) if way is Way.SEEDER else self._need_origin()
        parts: list[bytes] = []
        async with (
            self._counted(rung, repository, reader.others_came_at) as attempt,
            rung.source.open_blob(repository, digest, start, stop) as stream,
        ):
            attempt.has_headers, attempt.moved_at = True, trio.current_time()
            if stream.size != size:
                raise WrongContent(f"{rung.name} says that {digest} has {stream.size} bytes, not {size}")
            if stream.stop <= start:
                raise Unavailable(f"{rung.name} gives nothing of {digest} from byte {start} on")
            reader.on_bytes(0)
            if not rung.is_origin:
                reader.on_holding(stream.holding)
            skip, came = start - stream.start, 0
            wanted = min(stop, stream.stop) - stream.start
            gather = Gather(trio.current_time())
            try:
                async for chunk in stream.chunks:
                    reader.on_bytes(len(chunk))
                    attempt.moved_at = trio.current_time()
                    came += len(chunk)
                    if part := chunk[skip:] if skip else chunk:
                        parts.append(part)
                    skip = max(0, skip - len(chunk))
                    await self._meter.passed(len(chunk), lambda: reader.on_bytes(0))
                    if came >= wanted and stream.stop > stop:
                        break
                    # An answer is read to its end: only then its connection is kept for the next one.
                    await gather.before_next(len(chunk), wanted - came)
            finally:
                # What came before a failure crossed the WAN all the same.
                self._metrics.wan_bytes.labels(rung.name).inc(came)
        # More than was asked for comes from a server that does not know ranges.
        parts[-1:] = [part[: len(part) - max(0, came - wanted)] for part in parts[-1:]]
        return b"".join(parts)

    @asynccontextmanager
    async def origin_stream(
        self,
        repository: Repository,
        digest: Digest,
        start: int,
        stop: int | None,
        on_wait: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[BlobStream]:
        """A plain stream from the origin, for the node that leads where no seeder is.

        `on_wait`: see `WanMeter.passed`.
        """
        rung = self._need_origin()
        async with (
            self._counted(rung, repository) as attempt,
            rung.source.open_blob(repository, digest, start, stop) as stream,
        ):
            attempt.has_headers = True
            async with aclosing(self._metered(stream.chunks, on_wait)) as chunks:
                yield replace(stream, chunks=chunks)

    async def _metered(
        self, chunks: AsyncIterator[bytes], on_wait: Callable[[], None]
    ) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
            await self._meter.passed(len(chunk), on_wait)

    def _first_seeder(self, repository: Repository) -> _Rung:
        for rung in self._seeders:
            if rung.is_up(repository):
                return rung
        raise Unavailable("no seeder answers: check [wan] seeders, or wait for one to come back")

    def _need_origin(self) -> _Rung:
        if self._origin is None:
            raise Unavailable("going to origins directly is switched off ([wan] direct = false)")
        return self._origin

    async def _climb(
        self,
        repository: Repository,
        ask: Callable[[Origin], Awaitable[T]],
        content_bytes: Callable[[T], int] = lambda _answer: 0,
    ) -> T:
        rungs = [rung for rung in self._seeders if rung.is_up(repository)]
        if self._origin is not None:
            rungs.append(self._origin)
        refused: OriginFault | None = None
        failed: OriginFault | None = None
        stale: Stale | None = None
        for rung in rungs:
            try:
                async with self._counted(rung, repository):
                    answer = await _in_time(ask, rung)
            except (NotFound, Denied) as error:
                refused = refused or error
            except Stale as error:
                stale = stale or error
            except OriginFault as error:
                failed = error
            else:
                count = content_bytes(answer)
                self._metrics.wan_bytes.labels(rung.name).inc(count)
                self._meter.charge(count)
                return answer
        raise (
            refused
            or stale
            or failed
            or Unavailable("neither a seeder nor an origin can be reached: is the WAN up?")
        )

    @asynccontextmanager
    async def _counted(
        self, rung: _Rung, repository: Repository, others_came_at: Callable[[], float] = _never
    ) -> AsyncIterator[_Attempt]:
        """Keep the rung's breakers, and say when it steps down or up."""
        attempt = _Attempt()
        try:
            yield attempt
        except (NotFound, Denied, WrongContent, Stale):
            # It answered: one bad image must not cost the others their source.
            self._note(rung, rung.reach.answered())
            raise
        except OriginFault as error:
            beyond = error.beyond_seeder or attempt.has_headers
            if others_came_at() > attempt.moved_at:
                # This one blob waits, as layers do in a cold seeder's line.
                self._metrics.wan_failures.labels(rung.name, repository.registry).inc()
            else:
                self._note_failure(rung, repository, error, beyond=beyond)
            raise
        self._note(rung, rung.reach.succeeded(repository.registry))

    def _note_failure(self, rung: _Rung, repository: Repository, error: OriginFault, *, beyond: bool) -> None:
        registry, now = repository.registry, trio.current_time()
        retry_after = error.retry_after if isinstance(error, RateLimited) else None
        self._metrics.wan_failures.labels(rung.name, registry).inc()
        turns = rung.reach.failed(registry, now, retry_after, beyond=beyond or rung.is_origin)
        self._note(rung, turns, str(error))

    def _note(self, rung: _Rung, turns: Sequence[Turn], reason: str = "") -> None:
        """Log and show that a rung, or one registry behind it, stopped or began to answer."""
        for turn in turns:
            if turn.upstream is None:
                self._metrics.source_up.labels(rung.name).set(turn.is_up)
                about = {"rung": rung.name}
            else:
                self._metrics.upstream_up.labels(rung.name, turn.upstream).set(turn.is_up)
                about = {"rung": rung.name, "registry": turn.upstream}
            if turn.is_up:
                log.info("ladder.up", **about)
            else:
                log.warning("ladder.down", **about, reason=reason)


async def _in_time(ask: Callable[[Origin], Awaitable[T]], rung: _Rung) -> T:
    with trio.move_on_after(rung.deadline):
        return await ask(rung.source)
    raise Unavailable(f"{rung.name} did not answer within {rung.deadline:.0f} s")
