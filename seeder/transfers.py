"""Blobs on their way from an origin to the seeder's store, each fetched once whoever asks.

Rules that hold here:
- The service's nursery owns a transfer. Clients wait for it, read it while it grows, and leave;
  none of that touches it.
- One transfer a digest at a time. One that failed is remembered for a moment, so that those who
  ask again fail fast instead of hammering the origin; then it is begun afresh, from the bytes that
  are on disk already.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import structlog
import trio

from p2pd.app.pull import pull_blob
from p2pd.decide.retry import RetryPolicy
from p2pd.model.errors import (
    Denied,
    NotFound,
    OurFault,
    P2pdError,
    RateLimited,
    Unavailable,
    WrongContent,
    fresh,
)
from p2pd.model.reference import Digest, Repository
from p2pd.ports.origin import Origin
from p2pd.ports.store import Partial, Store
from seeder.metrics import SeederMetrics
from seeder.turns import Turns

__all__ = ["Transfers"]

log = structlog.get_logger()

_REMEMBERED = 4096

Key = tuple[Repository, Digest]


class _Transfer:
    """`partial` or `error` is there once `live` is set."""

    def __init__(self, repository: Repository, digest: Digest) -> None:
        self.repository = repository
        self.digest = digest
        self.partial: Partial | None = None
        self.error: P2pdError | None = None
        self.live = trio.Event()


class Transfers:
    """`at_once` bounds the transfers that run; the others wait in line. `make_room`
    is called with digest and size of each before it begins; it may raise StoreFull. Times are in seconds."""

    def __init__(
        self,
        store: Store,
        origin: Origin,
        nursery: trio.Nursery,
        *,
        policy: RetryPolicy | None = None,
        refuse_after_failure: float = 5.0,
        at_once: int = 32,
        rng: Callable[[], float] = random.random,
        make_room: Callable[[Digest, int], Awaitable[None]] | None = None,
        metrics: SeederMetrics | None = None,
    ) -> None:
        self._make_room = make_room
        self._store = store
        self._origin = origin
        self._nursery = nursery
        self._policy = policy or RetryPolicy()
        self._refuse_for = refuse_after_failure
        self._slots = trio.Semaphore(at_once)
        self._turns = Turns()
        self._rng = rng
        self._metrics = metrics or SeederMetrics()
        self._running: dict[Digest, _Transfer] = {}
        self._failed: dict[Key, tuple[P2pdError, float]] = {}

    @property
    def running(self) -> int:
        """How many are running or wait for their turn."""
        return len(self._running)

    def is_running(self, digest: Digest) -> bool:
        """Whether the blob is on its way, or waits for its turn."""
        return digest in self._running

    def assembly(self, digest: Digest) -> Partial | None:
        """What is there of a blob on its way, once its origin has answered."""
        transfer = self._running.get(digest)
        return None if transfer is None else transfer.partial

    async def obtain(self, repository: Repository, digest: Digest) -> Partial:
        """The assembly of the blob, begun if need be, as soon as its origin has answered.

        Raises P2pdError when the transfer fails before that, or has failed a moment ago.
        """
        while True:
            transfer = self._running.get(digest) or self._begin(repository, digest)
            await transfer.live.wait()
            if transfer.partial is not None:
                return transfer.partial
            if transfer.error is None:
                raise Unavailable(f"the transfer of {digest} was stopped")
            # What another repository is denied or lacks says nothing about this one.
            if transfer.repository == repository or not isinstance(transfer.error, NotFound | Denied):
                raise fresh(transfer.error)

    def _begin(self, repository: Repository, digest: Digest) -> _Transfer:
        failure = self._failed.get((repository, digest))
        if failure is not None:
            if trio.current_time() < failure[1]:
                raise fresh(failure[0])
            del self._failed[repository, digest]
        transfer = self._running[digest] = _Transfer(repository, digest)
        self._nursery.start_soon(self._run, transfer)
        return transfer

    async def _run(self, transfer: _Transfer) -> None:
        began = trio.current_time()
        metrics = self._metrics
        metrics.transfers_running.set(len(self._running))
        try:
            async with self._slots:
                size = await self._fetch(transfer)
        except P2pdError as error:
            self._give_up(transfer, error)
            log.warning(
                "transfer.fails",
                digest=str(transfer.digest),
                repository=str(transfer.repository),
                seconds=round(trio.current_time() - began, 3),
                reason=str(error),
            )
        except Exception as error:
            # A bug costs this transfer, not the daemon and everybody else's.
            self._give_up(transfer, OurFault(f"the transfer of {transfer.digest} failed unexpectedly"))
            log.exception("transfer.crashed", digest=str(transfer.digest), error=repr(error))
        else:
            seconds = round(trio.current_time() - began, 3)
            metrics.transfers.labels("ok").inc()
            metrics.transfer_seconds.observe(seconds)
            log.info(
                "transfer.ends",
                digest=str(transfer.digest),
                repository=str(transfer.repository),
                bytes=size,
                seconds=seconds,
            )
        finally:
            del self._running[transfer.digest]
            metrics.transfers_running.set(len(self._running))
            transfer.live.set()

    async def _fetch(self, transfer: _Transfer) -> int:
        repository, digest = transfer.repository, transfer.digest
        size = await self._origin.blob_size(repository, digest)
        if self._make_room is not None:
            await self._make_room(digest, size)
        partial = await self._store.begin(digest, size, resume=False)
        had: int | None = None
        try:
            transfer.partial = partial
            transfer.live.set()
            while await partial.resume():
                pass  # readers get meanwhile what was hashed again
            had = partial.frontier
            with self._turns.enter(repository, size) as turn:
                await turn.wait(had)
                await pull_blob(
                    self._origin, repository, partial, policy=self._policy, rng=self._rng, turn=turn.wait
                )
            await partial.commit()
        except P2pdError as error:
            partial.fail(error)
            raise
        finally:
            if had is not None:
                self._metrics.origin_bytes.labels(repository.registry).inc(max(0, partial.frontier - had))
            with trio.CancelScope(shield=True):
                await partial.aclose()
        return size

    def _give_up(self, transfer: _Transfer, error: P2pdError) -> None:
        transfer.error = error
        self._metrics.transfers.labels("failed").inc()
        self._metrics.failed("transfer", error)
        if isinstance(error, WrongContent):
            self._metrics.hash_failures.labels("blob").inc()
        if isinstance(error, Unavailable | RateLimited | WrongContent):
            self._metrics.origin_failures.labels(transfer.repository.registry).inc()
        key = (transfer.repository, transfer.digest)
        self._failed.pop(key, None)
        while len(self._failed) >= _REMEMBERED:
            del self._failed[next(iter(self._failed))]
        self._failed[key] = (error, trio.current_time() + self._refuse_for)
