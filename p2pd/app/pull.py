"""One blob from an origin into a Partial, through cuts, stalls and servers that ignore ranges."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
import trio

from p2pd.decide.retry import RetryPolicy, retry_delay
from p2pd.model.errors import OriginFault, P2pdError, Unavailable, WrongContent
from p2pd.model.reference import Repository
from p2pd.ports.origin import Origin
from p2pd.ports.store import Partial

__all__ = ["pull_blob"]

log = structlog.get_logger()

_APPEND = 256 * 1024
_MOST_BUFFERED = 1024 * 1024
_DRIP_WINDOW, _DRIP_BYTES = 15.0, 48 * 1024
"""An answer that brings fewer bytes in so many seconds is as good as stalled: the next one may do better."""

_LINGER = 0.02
"""Seconds that bytes wait for company before they are appended: spares the disk, delays nobody."""

Turn = Callable[[int], Awaitable[None]]


async def _at_once(_frontier: int) -> None:
    """Wait for nobody."""


async def pull_blob(
    origin: Origin,
    repository: Repository,
    partial: Partial,
    *,
    stop: int | None = None,
    policy: RetryPolicy | None = None,
    rng: Callable[[], float] = random.random,
    turn: Turn = _at_once,
) -> None:
    """Append the bytes [partial.frontier, stop) to `partial`, to its end when `stop` is None.

    Resumes by Range after every failure that `policy` forgives; bytes count as progress. `turn` is
    awaited with the frontier before each append: while it lasts, the source is not read. Does not
    commit. Raises the last OriginFault when the policy gives up, StoreError as it comes; what was
    appended by then stays.
    """
    policy = policy or RetryPolicy()
    goal = partial.size if stop is None else stop
    failures, progress_at = 0, trio.current_time()
    while partial.frontier < goal:
        before = partial.frontier
        try:
            await _one_request(origin, repository, partial, goal, turn)
        except OriginFault as error:
            fault = error
        else:
            if partial.frontier > before:
                failures = 0
                continue
            fault = Unavailable(f"the origin of {partial.digest} sent an empty answer")
        if partial.frontier > before:
            failures, progress_at = 0, trio.current_time()
        failures += 1
        delay = retry_delay(policy, fault, failures, trio.current_time() - progress_at, rng())
        if delay is None:
            raise fault
        log.info(
            "pull.retry",
            digest=str(partial.digest),
            bytes=partial.frontier,
            seconds=round(delay, 3),
            failures=failures,
            reason=str(fault),
        )
        await trio.sleep(delay)


async def _one_request(
    origin: Origin, repository: Repository, partial: Partial, goal: int, turn: Turn
) -> None:
    """Append what one answer holds; when it breaks off, what came before is appended all the same."""
    wanted_from = partial.frontier
    async with origin.open_blob(
        repository, partial.digest, wanted_from, None if goal == partial.size else goal
    ) as stream:
        if stream.size != partial.size:
            raise WrongContent(
                f"{repository} says that {partial.digest} has {stream.size} bytes, not {partial.size}"
            )
        if stream.start > wanted_from:
            raise WrongContent(f"{repository} answers for {partial.digest} with a later range than asked for")
        # An answer is read to its end, where that is the goal: only then its connection is kept.
        pipe = _Pipe(wanted_from - stream.start, goal - wanted_from, is_cut=stream.stop > goal)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.fill, stream.chunks)
            nursery.start_soon(pipe.watch, nursery.cancel_scope)
            await pipe.drain(partial, turn)
            nursery.cancel_scope.cancel()
        if pipe.error is not None:
            raise pipe.error


class _Pipe:
    """A bounded buffer between the network and the disk, so that neither waits for the other."""

    def __init__(self, skip: int, take: int, *, is_cut: bool) -> None:
        """Drops `skip` bytes and takes the next `take`; `is_cut`: more come, which nobody waits for."""
        self._skip = skip
        self._take = take
        self._is_cut = is_cut
        self._buffer = bytearray()
        self._ended = False
        self._came = 0
        self._was_full = False
        self._changed = trio.Event()
        self.error: P2pdError | None = None

    async def fill(self, chunks: AsyncIterator[bytes]) -> None:
        try:
            async for chunk in chunks:
                self._came += len(chunk)
                data = chunk[self._skip : self._skip + self._take] if self._skip else chunk[: self._take]
                self._skip -= min(self._skip, len(chunk))
                self._take -= len(data)
                self._buffer += data
                self._tell()
                if self._is_cut and not self._take:
                    break
                while len(self._buffer) >= _MOST_BUFFERED:
                    self._was_full = True
                    await self._changed.wait()
        except OriginFault as error:
            self.error = error
        self._ended = True
        self._tell()

    async def watch(self, scope: trio.CancelScope) -> None:
        """End an answer that only drips. A full buffer is not the source's doing."""
        while True:
            before, self._was_full = self._came, len(self._buffer) >= _MOST_BUFFERED
            await trio.sleep(_DRIP_WINDOW)
            came = self._came - before
            if came < _DRIP_BYTES and not self._was_full and not self._ended:
                self.error = Unavailable(f"the source drips: {came} bytes in {_DRIP_WINDOW:.0f} s")
                scope.cancel()
                return

    async def drain(self, partial: Partial, turn: Turn) -> None:
        """Append until the source has ended; an error of the store ends it at once."""
        try:
            while self._buffer or not self._ended:
                while not self._buffer and not self._ended:
                    await self._changed.wait()
                with trio.move_on_after(_LINGER):
                    while len(self._buffer) < _APPEND and not self._ended:
                        await self._changed.wait()
                if self._buffer:
                    await turn(partial.frontier)
                    data, self._buffer = bytes(self._buffer), bytearray()
                    self._tell()
                    await partial.append(data)
        except P2pdError as error:
            self.error = error

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
