"""The transfers under way on this node: one a digest, however many clients and peers ask."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial as bind
from itertools import count
from math import inf

import structlog
import trio

from p2pd.app.bounded import Bounded
from p2pd.app.reporting import report_nowait
from p2pd.app.site import Site
from p2pd.app.transfer import Transfer
from p2pd.decide.plan import Way
from p2pd.decide.report import until_next_report
from p2pd.model.content import Place
from p2pd.model.errors import OriginFault, P2pdError, Unavailable, WrongContent, fresh
from p2pd.model.rate import LinkUse
from p2pd.model.reference import Digest, Repository

__all__ = ["Transfers"]

log = structlog.get_logger()

FAILURE_REMEMBERED = 5.0
"""Seconds for which a failed digest answers at once, so that clients go on to their next host."""

SOURCE_DEADLINE = 8.0
"""Seconds within which a source must be live, else the client is told to go elsewhere."""

SIBLINGS = 1.0
"""Seconds for which a layer leaves the WAN to lower ones that its client has yet to ask for. Clients ask for
several at once, in no order: who begins with the wrong one spreads the WAN over all, and gets none soon."""

_WRONG = 4096


@dataclass(frozen=True, slots=True)
class _Failure:
    repository: Repository
    error: P2pdError
    until: float


class Transfers:
    """Starts transfers in the daemon's nursery; no client owns one.

    `make_room` is called with digest and size of each before it begins; it may raise StoreFull. By the clock
    `wall`, seconds, it is decided when peers are told how this node stands.
    """

    def __init__(
        self,
        site: Site,
        nursery: trio.Nursery,
        make_room: Callable[[Digest, int], Awaitable[None]] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._site = site
        self._make_room = make_room
        self._wall = wall
        self._nursery = nursery
        self._running: dict[Digest, Transfer] = {}
        self._failures: dict[Digest, _Failure] = {}
        self._wrong: Bounded[Digest, bool] = Bounded(_WRONG)
        self._starting = trio.Lock()
        self._is_reporting = False
        site.peers.on_change(self._peers_changed)

    def running(self, digest: Digest) -> Transfer | None:
        return self._running.get(digest)

    def went_wrong(self, digest: Digest) -> bool:
        """Whether its last attempts, if any, gave other bytes than it or of another size."""
        return digest in self._wrong

    def use(self) -> LinkUse:
        """What this node uses of the links now.

        A client that waits for what can only come from the LAN is not urgent to others: it may wait for
        the blob that one of them fetches in the background.
        """
        running = self._running.values()
        return LinkUse(
            wan=any(each.is_using_wan for each in running),
            urgent=any(not each.is_background and each.plan.way is not Way.NONE for each in running),
            swarm=bool(self._site.shelf.loaded),
        )

    def _is_behind(self, transfer: Transfer) -> bool:
        """Whether a lower layer of the same image is to have the WAN."""
        place, now = transfer.place, trio.current_time()
        if place is None:
            return False
        if now < transfer.started_at + SIBLINGS and any(self._is_to_come(below) for below in place.below):
            return True
        return any(
            other.place is not None and place.is_above(other.place) and other.plan.needs_wan(now)
            for other in self._running.values()
        )

    def _is_to_come(self, digest: Digest) -> bool:
        """Whether a client that pulls the image will ask for this blob, if it does not have it."""
        return digest not in self._running and self._site.store.size_of(digest) is None

    def _let_on(self, transfer: Transfer) -> None:
        """The layers above it need wait no longer."""
        place = transfer.place
        for other in self._running.values():
            if place is not None and other.place is not None and other.place.is_above(place):
                other.poke()

    def _others_came_at(self, transfer: Transfer) -> float:
        """When bytes last came of another blob of the same repository."""
        others = [each for each in self._running.values() if each.repository == transfer.repository]
        return max((each.bytes_at for each in others if each is not transfer), default=-inf)

    def has_background(self) -> bool:
        return any(each.is_background for each in self._running.values())

    def all_running(self) -> list[Transfer]:
        return list(self._running.values())

    async def obtain(
        self,
        repository: Repository,
        digest: Digest,
        size: int,
        place: Place | None = None,
        *,
        background: bool = False,
    ) -> Transfer:
        """The transfer of `digest`, begun or joined, once a source is live. Raises P2pdError.

        Of one image, by `place`, lower layers get the WAN first: runtimes unpack them in that order.
        In the `background` it leaves the WAN to what clients wait for, until one of them asks for it.
        """
        transfer = self._running.get(digest)
        if transfer is None:
            self._raise_remembered(repository, digest)
            if self._make_room is not None:
                await self._make_room(digest, size)
            async with self._starting:
                transfer = self._running.get(digest)
                if transfer is None:
                    transfer = await self._start(repository, digest, size, place, background=background)
        if not background:
            transfer.become_urgent()
        with trio.move_on_after(SOURCE_DEADLINE):
            await transfer.live.wait()
        if transfer.failure is not None:
            raise fresh(transfer.failure)
        if not transfer.live.is_set():
            reason = f" (last: {transfer.last_fault})" if transfer.last_fault else ""
            raise Unavailable(f"no source for {digest} is live after {SOURCE_DEADLINE:.0f} s{reason}")
        return transfer

    async def _start(
        self, repository: Repository, digest: Digest, size: int, place: Place | None, *, background: bool
    ) -> Transfer:
        partial = await self._site.store.begin(digest, size, resume=False)
        transfer = Transfer(
            self._site,
            repository,
            partial,
            alone=self._wrong.get(digest, False),
            background=background,
            place=place,
        )
        transfer.is_behind = bind(self._is_behind, transfer)
        transfer.on_wan_left = bind(self._let_on, transfer)
        transfer.is_beside(bind(self._others_came_at, transfer))
        self._running[digest] = transfer
        self._nursery.start_soon(self._run, transfer)
        return transfer

    async def _run(self, transfer: Transfer) -> None:
        digest = transfer.digest
        self._site.peers.set_busy(True)
        self._site.metrics.transfers_running.set(len(self._running))
        if not self._is_reporting:
            self._is_reporting = True
            self._nursery.start_soon(self._report)
        try:
            await transfer.run()
        finally:
            self._running.pop(digest, None)
            self._site.peers.set_busy(bool(self._running))
            self._site.metrics.transfers_running.set(len(self._running))
        self._settle(transfer)

    async def _report(self) -> None:
        """Tell the members of all transfers how this node stands, until none runs: one notice a peer."""
        try:
            # Which of its reports are full is another for each node: so one hears from some at any time.
            for turn in count(sum(self._site.me.encode())):
                if not self._running:
                    break
                report_nowait(self._site.peers, self._running.values(), turn)
                await trio.sleep(until_next_report(self._wall()))
        finally:
            self._is_reporting = False

    def _settle(self, transfer: Transfer) -> None:
        seconds = round(trio.current_time() - transfer.started_at, 3)
        digest, error = transfer.digest, transfer.failure
        self._count(transfer, seconds)
        about = {"digest": str(digest), "repository": str(transfer.repository)}
        if error is None:
            self._wrong.pop(digest, None)
            size, over_wan = transfer.layout.size, transfer.wan_bytes
            log.info("transfer.ends", **about, bytes=size, wan_bytes=over_wan, seconds=seconds)
            return
        log.warning("transfer.fails", **about, seconds=seconds, reason=str(error))
        if isinstance(error, WrongContent):
            # Where a peer may have lied, or be broken, nobody can say which: next time without them.
            self._wrong[digest] = transfer.is_peers_fault or self._wrong.get(digest, False)
        now = trio.current_time()
        self._failures = {d: f for d, f in self._failures.items() if f.until > now}
        self._failures[digest] = _Failure(transfer.repository, error, now + FAILURE_REMEMBERED)

    def _count(self, transfer: Transfer, seconds: float) -> None:
        metrics, error = self._site.metrics, transfer.failure
        metrics.transfers.labels("ok" if error is None else "failed").inc()
        metrics.takeovers.inc(transfer.plan.takeovers)
        if error is None:
            metrics.transfer_seconds.observe(seconds)
            metrics.wan_spared_bytes.inc(
                max(0, transfer.layout.size - transfer.bytes_before - transfer.wan_bytes)
            )
            return
        metrics.failed("transfer", error)
        if isinstance(error, WrongContent):
            metrics.hash_failures.labels("blob").inc()

    def _raise_remembered(self, repository: Repository, digest: Digest) -> None:
        failure = self._failures.get(digest)
        if failure is None or failure.until <= trio.current_time():
            return
        # What the registry of another repository lacks, or that it is away, says nothing about this one.
        if failure.repository == repository or not isinstance(failure.error, OriginFault):
            raise fresh(failure.error)

    def _peers_changed(self) -> None:
        self._site.metrics.peers.set(len(self._site.peers.live()))
        for transfer in self._running.values():
            transfer.peers_changed()
