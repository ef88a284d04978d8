"""One blob on its way to this node: the shell around `p2pd.decide.plan`.

Tasks of a transfer, all in one nursery that the daemon owns (no client does):

* drive: tells the plan what happened, carries out what it decides;
* a task a segment of the window: gets the segment's metadata, loads its torrent, meets peers;
* a task a stripe in flight over the WAN;
* assemble: appends what is readable, in order, to the Partial that clients are reading.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable

import structlog
import trio

from p2pd.app.lead import lead
from p2pd.app.meeting import Meeting
from p2pd.app.site import Site
from p2pd.decide.bits import bits_to_bytes, bytes_to_bits, mask_of, run_to_bits
from p2pd.decide.hearsay import Hearsay
from p2pd.decide.plan import FetchPlan, Way
from p2pd.decide.report import Report
from p2pd.io.files import read_part
from p2pd.model.content import Place
from p2pd.model.errors import (
    Denied,
    NotFound,
    P2pdError,
    RateLimited,
    StoreError,
    Unavailable,
    WrongContent,
    fresh,
)
from p2pd.model.layout import SEGMENT, Layout, SegmentMeta
from p2pd.model.messages import Progress, ProgressDelta, SegmentReady
from p2pd.model.reference import Repository
from p2pd.ports.store import Partial
from p2pd.ports.swarm import SwarmSegment

__all__ = ["Transfer"]

log = structlog.get_logger()

STALL = 25.0
"""Seconds without a byte from anywhere after which clients are told: no runtime waits much longer."""

STALL_WITHOUT_SOURCE = 8.0
"""The same where nobody is known who could bring one."""

DRIP = 1.0
"""Seconds after which single pieces are delivered although their segment is not whole yet."""

NEWS = 0.05
"""Seconds for which news of other members is gathered before the next decision."""

_REFUSALS = (NotFound, Denied, RateLimited, WrongContent)
"""Faults that asking again in a moment does not mend: the last source's refusal is the client's answer."""

HELD_BACK = 15.0
"""Seconds for which clients are given nothing that only peers vouch for. From a peer that holds a blob it
comes whole in that time; no runtime gives up sooner."""

HELD_UP = 2.0
"""Seconds that a decision may come late by before the clock counts as having jumped."""

CHECK_STAGED = 3.0
"""Seconds that files of an earlier run may hold up the first request over the WAN."""

TICK = 1.0
"""Longest time between two decisions: how late a change of the WAN's health is noticed."""


class Transfer:
    """Fetches `digest` into the store. `run` is called once; the rest from any task of the daemon."""

    def __init__(
        self,
        site: Site,
        repository: Repository,
        partial: Partial,
        *,
        alone: bool,
        background: bool = False,
        place: Place | None = None,
    ) -> None:
        self.site = site
        self.repository = repository
        self.is_background = background
        self.place = place
        self.is_behind: Callable[[], bool] = bool
        self.partial = partial
        self.digest = partial.digest
        self.layout = Layout(partial.size)
        self.plan = FetchPlan(
            self.digest,
            self.layout,
            site.me,
            site.wan.way(repository),
            trio.current_time(),
            site.standing,
        )
        self.metas: dict[int, SegmentMeta] = {}
        self.live = trio.Event()
        self.ended = trio.Event()
        self.failure: P2pdError | None = None
        self.writer = trio.Lock()
        self.started_at = trio.current_time()
        self.bytes_before = 0
        self.wan_bytes = 0
        self._alone = alone
        self._meeting = Meeting(self)
        self._nursery: trio.Nursery | None = None
        self._working: set[int] = set()
        self._loaded: dict[int, SwarmSegment] = {}
        self._unchecked: set[int] = set()
        self._raw: dict[int, bytes] = {}
        self._fetches: dict[int, trio.CancelScope] = {}
        self._given: dict[int, bytes] = {}
        self._believed: set[int] = set()
        self._hearsay = Hearsay()
        self._doubted_at: float | None = None
        self.is_peers_fault = False
        """Whether wrong bytes may be a peer's doing: what fits hashes from a seeder is the seeder's."""
        self._refused_by_seeder = False
        self._changed = trio.Event()
        self._pause = trio.CancelScope()
        self._report = Report(self.digest, self.layout.size)
        self._alive_at = trio.current_time()
        self._lead_scope: trio.CancelScope | None = None
        self.last_fault: P2pdError | None = None
        self._told_fault = ""

    # For the peer service.

    @property
    def progress(self) -> Progress:
        """How this node stands."""
        count = self.layout.stripe_count
        plan = self.plan
        return Progress(
            self.digest,
            self.layout.size,
            bits_to_bytes(plan.have, count),
            bits_to_bytes(plan.claimed, count),
            plan.way.value,
            done=self.ended.is_set(),
        )

    @property
    def readable(self) -> int:
        """Bytes from the start on that readers get at once: not the last stripe, before all is checked."""
        return min(self.partial.frontier, self.layout.stripe(self.layout.stripe_count - 1).start)

    def member_stands(self, node: str, progress: Progress) -> None:
        """A peer told how it stands."""
        if progress.size != self.layout.size or self._alone:
            return
        count, now = self.layout.stripe_count, trio.current_time()
        have = bytes_to_bits(progress.have, count)
        if progress.done and have == mask_of(range(count)):
            self.plan.holder_found(node, now)
        elif progress.done:
            self.plan.member_left(node)
        else:
            claimed = bytes_to_bits(progress.claimed, count)
            self.plan.member_progress(node, have, claimed, Way(progress.wan), now)
            if have | claimed:
                # It is coming, if only by and by: a leader's first segment may take long on a slow WAN.
                self.live.set()
        self.poke()

    def member_advances(self, node: str, delta: ProgressDelta) -> None:
        """A member tells what is new. Only the next decision depends on it, and that can wait for more."""
        if delta.size != self.layout.size or self._alone:
            return
        gained = run_to_bits(delta.gained_from, delta.gained)
        flying, now = run_to_bits(delta.flying_from, delta.flying), trio.current_time()
        if not self.plan.member_advanced(node, gained, flying, Way(delta.wan), now):
            self._meeting.meet_again(node)
            return
        if gained | flying:
            self.live.set()
        self._pause.deadline = min(self._pause.deadline, now + NEWS)

    def due_report(self, now: float) -> ProgressDelta | None:
        """What members are to be told now."""
        return self._report.due(self.plan.have, self.plan.claimed, self.plan.way.value, now)

    def learn_meta(self, meta: SegmentMeta, *, announce: bool) -> None:
        """Metadata from a seeder, or of this node's own making; the first word counts."""
        if meta.blob_size != self.layout.size or not meta.is_consistent or meta.index in self.metas:
            return
        self.metas[meta.index] = meta
        if announce:
            notice = SegmentReady(meta.digest, meta.blob_size, meta.index, meta.piece_hashes)
            self.site.peers.notify_nowait(self.plan.members, notice)
        self.poke()

    def hear_meta(self, node: str, meta: SegmentMeta) -> None:
        """A peer's word on metadata. It counts only where this node cannot, or should not, ask a seeder,
        or gets no answer from it.

        Pieces that fit wrong hashes would be delivered before the whole sha256 can be judged: what they
        vouch for is held back until that is known, or for `HELD_BACK` seconds.
        """
        if meta.index not in self.metas:
            self._hearsay.heard(node, meta, trio.current_time())
            self._believe_peers()

    def _believe_peers(self) -> None:
        now = trio.current_time()
        beliefs = self._hearsay.believed(
            self._meeting.choice,
            self.plan.holders,
            now,
            is_asking=self.plan.open_way is Way.SEEDER,
            could_ask=self.own_way() is Way.SEEDER,
        )
        for belief in beliefs:
            is_news = belief.meta.index not in self.metas
            self.learn_meta(belief.meta, announce=False)
            if is_news:
                self._believed.add(belief.meta.index)
                self.is_peers_fault = True
            if (
                is_news
                and belief.meta.index in self.metas
                and belief.is_doubtful
                and self._doubted_at is None
            ):
                self._doubted_at = now
                self.partial.hold_back(True)

    def _doubt_no_longer(self, now: float) -> None:
        """Let clients have what only peers vouch for, where they have waited as long as they can."""
        if self._doubted_at is not None and now - self._doubted_at > HELD_BACK:
            self.partial.hold_back(False)

    def peers_changed(self) -> None:
        """The set of live peers changed."""
        self._meeting.peers_changed()

    def poke(self) -> None:
        """Something changed: decide again."""
        self._changed.set()
        self._changed = trio.Event()

    def bytes_came(self, count: int) -> None:
        """Bytes (or at least headers) arrived over either plane."""
        self._alive_at = trio.current_time()
        self.live.set()

    @property
    def changed(self) -> trio.Event:
        """Set and replaced at the next change."""
        return self._changed

    @property
    def bytes_held(self) -> int:
        """Bytes that are here and verified, in any order."""
        return min(self.layout.size, self.plan.have.bit_count() * self.layout.piece_length)

    @property
    def is_alone(self) -> bool:
        """Whether peers are left out, because an earlier attempt with them ended in wrong bytes."""
        return self._alone

    # Life.

    async def run(self) -> None:
        """Fetch, assemble, commit. Ends with the blob held, or with `failure` set; never raises P2pdError."""
        try:
            await self._resume()
            if self.failure is None:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self._drive, nursery)
                    await self._assemble()
                    nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._wind_up()

    async def _resume(self) -> None:
        """Hash again what an earlier run left. Readers get it meanwhile: for a large layer it takes long."""
        try:
            is_more = True
            while is_more and self.failure is None:
                is_more = await self.partial.resume()
                if self.readable:
                    self.live.set()
        except P2pdError as error:
            self.fail(error)
        self.bytes_before = self.partial.frontier
        self.plan.resumed(mask_of(range(self.bytes_before // self.layout.piece_length)))
        self._alive_at = trio.current_time()
        log.info(
            "transfer.begins",
            digest=str(self.digest),
            repository=str(self.repository),
            bytes=self.layout.size,
            had=self.bytes_before,
        )

    def fail(self, error: P2pdError) -> None:
        """End the transfer; the first reason counts."""
        if self.failure is None and not self.ended.is_set():
            self.failure = error
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    async def _wind_up(self) -> None:
        self.ended.set()
        if self.failure is None and self.site.store.size_of(self.digest) is None:
            self.failure = Unavailable(f"the transfer of {self.digest} was stopped: p2pd is shutting down")
        if self.failure is not None:
            self.partial.fail(self.failure)
        else:
            self.plan.have = mask_of(range(self.layout.stripe_count))
        self.live.set()
        self.site.peers.notify_nowait(self.plan.members, self.progress)
        for index in list(self._loaded):
            # After a stop or a stall the next attempt begins with the pieces that are there.
            forget = not isinstance(self.failure, Unavailable)
            await self.site.shelf.release(self.digest, index, keep=self.failure is None, forget=forget)
        await self.partial.aclose()

    # Deciding.

    async def _drive(self, nursery: trio.Nursery) -> None:
        if not self._alone:
            await self._meeting.introduce_everyone()
            nursery.start_soon(self._meeting.keep_introducing)
        await self._check_staged()
        decided_at = trio.current_time()
        while True:
            now = trio.current_time()
            if now > decided_at + TICK + HELD_UP:
                # This process stood still (stopped, or starved of CPU): that nothing came proves nothing.
                self._alive_at = now
                self.plan.stood_still(now)
            decided_at = now
            changed = self._changed
            self.plan.way_changed(self._meeting.choice.way(self.own_way(), self.plan.way_of), now)
            self._believe_peers()
            for index in self.plan.window():
                self.work_on(index)
            self.plan.is_behind = self.is_behind()
            decision = self.plan.decide(now)
            for stripe in decision.fetch:
                self.plan.started(stripe, now)
                nursery.start_soon(self._fetch, stripe)
            for stripe in decision.drop:
                self._end_fetch(stripe)
            self._lead_or_not(decision.lead, nursery)
            self._doubt_no_longer(now)
            self._check_stall(now)
            with trio.move_on_at(min(decision.wake_at or now + TICK, now + TICK)) as self._pause:
                await changed.wait()

    async def _check_staged(self) -> None:
        """Have files that an earlier run left checked before anything in them is fetched again."""
        if self.plan.open_way is not Way.SEEDER:
            return  # Nobody could say at once which bytes are right.
        try:
            self._unchecked = set(self.plan.window()) & await self.site.store.staged(self.digest)
        except P2pdError as error:
            log.info("transfer.fault", digest=str(self.digest), reason=str(error))
        for index in self._unchecked:
            self.work_on(index)
        with trio.move_on_after(CHECK_STAGED):
            while self._unchecked:
                await self._changed.wait()

    @property
    def is_using_wan(self) -> bool:
        return bool(self.plan.in_flight) or self._lead_scope is not None

    @property
    def _yields(self) -> bool:
        """Whether it leaves the WAN to what clients wait for; others take over what it would have fetched."""
        return self.is_background and self.site.links.must_yield

    def own_way(self) -> Way:
        """By which way this node could fetch, were it its turn."""
        wan = self.site.wan
        if self._yields:
            return Way.NONE
        if self._refused_by_seeder:
            return wan.way_without_seeder(self.repository)
        return wan.way(self.repository)

    def _check_stall(self, now: float) -> None:
        if self._yields:
            self._alive_at = now
            self.live.set()
            return
        has_source = self.plan.way is not Way.NONE or any(self.plan.members) or any(self.plan.holders)
        if not has_source and not self.live.is_set() and isinstance(self.last_fault, _REFUSALS):
            self.fail(fresh(self.last_fault))
            return
        allowed = STALL if has_source else STALL_WITHOUT_SOURCE
        if now - max(self._alive_at, self.plan.site_moved_at) > allowed:
            if not has_source and isinstance(self.last_fault, WrongContent):
                self.fail(fresh(self.last_fault))
                return
            reason = f" (last: {self.last_fault})" if self.last_fault else ""
            self.fail(Unavailable(f"no source brought a byte of {self.digest} for {allowed:.0f} s{reason}"))

    def work_on(self, index: int) -> None:
        """Have a task for this segment."""
        if index not in self._working and self._nursery is not None:
            self._working.add(index)
            self._nursery.start_soon(self._work_segment, index, self._nursery)

    def _lead_or_not(self, wanted: bool, nursery: trio.Nursery) -> None:
        if wanted and self._lead_scope is None:
            self._lead_scope = trio.CancelScope()
            nursery.start_soon(self._lead, self._lead_scope)
        elif not wanted and self._lead_scope is not None:
            self._lead_scope.cancel()
            self._lead_scope = None

    async def _lead(self, scope: trio.CancelScope) -> None:
        log.info("transfer.leads", digest=str(self.digest), repository=str(self.repository))
        with scope:
            try:
                await lead(self)
            except P2pdError as error:
                self._note_fault(error)
                if isinstance(error, NotFound | Denied | WrongContent | StoreError):
                    self.fail(error)
                await trio.sleep(1)
        if self._lead_scope is scope:
            self._lead_scope = None
            self.poke()

    # The WAN plane.

    async def _fetch(self, stripe: int) -> None:
        with trio.CancelScope() as scope:
            self._fetches[stripe] = scope
            await self._read_and_take(stripe)
        if self._fetches.get(stripe) is scope:
            del self._fetches[stripe]
        self.poke()

    def _end_fetch(self, stripe: int) -> None:
        """Its bytes are here, or left to others."""
        scope = self._fetches.pop(stripe, None)
        if scope is not None:
            scope.cancel()

    async def _read_and_take(self, stripe: int) -> None:
        try:
            data = await self.read_stripe(stripe)
        except P2pdError as error:
            self._note_fault(error)
            if self.plan.open_way is Way.SEEDER:
                if isinstance(error, WrongContent):
                    # The origin's bytes are wrong: to lead them to this site once more mends nothing.
                    self.fail(error)
                self._refused_by_seeder |= isinstance(error, NotFound | Denied)
            retry = (error.retry_after or 1.0) if isinstance(error, RateLimited) else 1.0
            self.plan.failed(stripe, trio.current_time(), retry)
        else:
            self.take_stripe(stripe, data)

    async def read_stripe(self, stripe: int) -> bytes:
        """Read one stripe by this node's way over the WAN."""
        cut = self.layout.stripe(stripe)
        span = (cut.start, cut.stop)
        return await self.site.wan.read_range(
            self.plan.open_way, self.repository, self.digest, self.layout.size, span, self.bytes_came
        )

    def take_stripe(self, stripe: int, data: bytes) -> None:
        """A stripe came over the WAN: to its torrent, or wait until that is loaded."""
        self.wan_bytes += len(data)
        if self.plan.is_at_site(stripe):
            self.site.metrics.wan_duplicate_bytes.inc(len(data))
        self.plan.received(stripe, trio.current_time())
        if self.plan.have >> stripe & 1:
            return  # it came over the LAN meanwhile: kept here, nobody would ever take it
        cut = self.layout.stripe(stripe)
        segment = self._loaded.get(cut.segment)
        if segment is None:
            self._raw[stripe] = data
        else:
            self._give(segment, stripe, data)

    def _give(self, segment: SwarmSegment, stripe: int, data: bytes) -> None:
        self._given[stripe] = data
        segment.add_piece_nowait(self.layout.stripe(stripe).piece, data)

    def _note_fault(self, error: P2pdError) -> None:
        if not isinstance(self.last_fault, _REFUSALS) or isinstance(error, _REFUSALS):
            self.last_fault = error
        # Each stripe fails by the same reason, again every second: it is told once.
        level = log.debug if str(error) == self._told_fault else log.info
        level("transfer.fault", digest=str(self.digest), reason=str(error))
        self._told_fault = str(error)
        self.poke()

    # The LAN plane.

    async def _work_segment(self, index: int, nursery: trio.Nursery) -> None:
        try:
            meta = await self._meeting.obtain_meta(index)
            segment = await self._load(meta)
            if not self._alone:
                nursery.start_soon(self._meeting.join_peers, index, segment)
            await self._watch(index, segment)
        except P2pdError as error:
            self.fail(error)

    async def _load(self, meta: SegmentMeta) -> SwarmSegment:
        """Load the segment and give it what this node has of it already."""
        index, cut = meta.index, meta.segment
        if self.partial.frontier >= cut.offset + cut.length:
            segment = await self.site.shelf.offer(self.digest, index, meta)
            if segment is not None:
                return segment
        segment = await self.site.shelf.load(meta)
        self._loaded[index] = segment
        stripes = self.layout.stripes_of(index)
        for stripe in stripes:
            piece = self.layout.stripe(stripe)
            if piece.stop <= self.partial.frontier and piece.piece not in segment.have:
                data = b"".join([chunk async for chunk in self.partial.chunks(piece.start, piece.stop)])
                segment.add_piece_nowait(piece.piece, data)
            elif (raw := self._raw.pop(stripe, None)) is not None:
                self._give(segment, stripe, raw)
        return segment

    async def _watch(self, index: int, segment: SwarmSegment) -> None:
        """Tell the plan which pieces arrive, until the segment is complete."""
        first = self.layout.stripes_of(index).start
        seen = set(segment.have)
        for piece in seen:
            self.plan.gained(first + piece, trio.current_time())
        self._unchecked.discard(index)
        while True:
            changed = segment.changed
            if segment.error is not None:
                raise segment.error
            now = trio.current_time()
            for piece in segment.have - seen:
                seen.add(piece)
                self._gained(first + piece, segment.meta.segment.piece_size(piece), now)
            for piece in segment.take_refused():
                self.site.metrics.hash_failures.labels("piece").inc()
                self._check_refused(segment, first + piece)
            self.poke()
            if segment.is_complete:
                return
            await changed.wait()

    def _gained(self, stripe: int, size: int, now: float) -> None:
        if not self.plan.claimed >> stripe & 1:
            self.site.metrics.lan_bytes.inc(size)
        self._given.pop(stripe, None)
        self._end_fetch(stripe)
        self.plan.gained(stripe, now)
        self.bytes_came(size)

    def _check_refused(self, segment: SwarmSegment, stripe: int) -> None:
        """A piece failed its hash. Blocks of a peer may have been mixed into one that came over the WAN.

        Where that one is bad by itself, the metadata is as suspect as the bytes.
        """
        data = self._given.get(stripe)
        if data is not None and _sha1(data) == segment.meta.piece_hash(self.layout.stripe(stripe).piece):
            self._give(segment, stripe, data)
        elif self.plan.refused(stripe) and not self._alone:
            self.is_peers_fault |= self.layout.stripe(stripe).segment in self._believed
            self.fail(WrongContent(f"bytes and metadata of {self.digest} do not fit: to be tried again"))

    # Delivery.

    async def _assemble(self) -> None:
        """Append in order what is readable, then commit."""
        partial = self.partial
        appended_at = trio.current_time()
        try:
            while partial.frontier < self.layout.size:
                changed = self._changed
                async with self.writer:
                    appended = await self._append_next(partial, appended_at)
                if appended:
                    appended_at = trio.current_time()
                    self.poke()
                    continue
                with trio.move_on_at(max(appended_at, trio.current_time()) + DRIP):
                    await changed.wait()
            await partial.commit()
        except P2pdError as error:
            self.fail(error)

    async def _append_next(self, partial: Partial, appended_at: float) -> bool:
        """Append a whole segment if there is one, else a piece if clients have waited for `DRIP`."""
        frontier = partial.frontier
        index = frontier // SEGMENT
        segment = self._loaded.get(index)
        if segment is None:
            return False
        cut = segment.meta.segment
        path = self.site.store.staged_path(self.digest, index)
        if len(segment.readable) == cut.piece_count:
            await partial.append_segment(path, segment.meta)
            self._loaded.pop(index)
            await self.site.shelf.release(self.digest, index, keep=True)
            return True
        piece = (frontier - cut.offset) // cut.piece_length
        if piece not in segment.readable or trio.current_time() - appended_at < DRIP:
            return False
        stop = piece * cut.piece_length + cut.piece_size(piece)
        read = functools.partial(read_part, path, frontier - cut.offset, stop)
        await partial.append(await trio.to_thread.run_sync(read))
        return True


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()
