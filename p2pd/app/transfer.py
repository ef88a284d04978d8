"""One blob on its way to this node: the shell around `p2pd.decide.plan`.

A transfer drives the plan: it tells it what happened and carries out what it decides. Its parts, each with
tasks of its own in one nursery that the daemon owns (no client does), share a `TransferState`:

* `Meeting`: who wants or holds the blob, and how they stand;
* `Metadata`: the piece hashes that are known, and whose word they are; `Joins`: who is asked for them;
* `Segments`: the LAN plane, a torrent a segment;
* `Stripes`: the WAN plane, a range request a stripe; `Leader`: the origin's one stream, where no seeder is;
* `Assembly`: the blob's file, which clients read while it grows.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from p2pd.app.assembly import Assembly
from p2pd.app.joins import Joins
from p2pd.app.lead import Leader
from p2pd.app.meeting import Meeting
from p2pd.app.metadata import Metadata
from p2pd.app.segments import Segments
from p2pd.app.site import Site
from p2pd.app.stripes import Stripes
from p2pd.app.transfer_state import REFUSALS, TransferState
from p2pd.decide.bits import mask_of
from p2pd.decide.plan import Way
from p2pd.decide.report import Report, tells_gains
from p2pd.model.content import Holding, Place
from p2pd.model.errors import P2pdError, Unavailable, WrongContent, fresh
from p2pd.model.layout import SegmentMeta
from p2pd.model.messages import Progress, ProgressDelta
from p2pd.model.reference import Repository
from p2pd.ports.store import Partial

__all__ = ["Transfer"]

STALL = 25.0
"""Seconds without a byte from anywhere after which clients are told: no runtime waits much longer."""

STALL_WITHOUT_SOURCE = 8.0
"""The same where nobody is known who could bring one."""

NEWS = 0.1
"""Seconds for which news is gathered before the next decision. Of other members always; else where one was
just made: a stripe's end, its piece and that of a neighbour come in bursts."""

HELD_UP = 2.0
"""Seconds that a decision may come late by before the clock counts as having jumped."""

WARM_WITHIN = 3.0
"""Seconds in which a seeder that has a blob tells the hashes of its first segment, for one that does not say
whether it has it. Taken for cold, all stripes of all layers are asked for at once, and none comes for half a
minute."""

TICK = 1.0
"""Longest time between two decisions: how late a change of the WAN's health is noticed."""


def _nobody_waits() -> None:
    pass


class Transfer:
    """Fetches a blob into the store. `run` is called once; the rest from any task of the daemon."""

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
        self._state = state = TransferState(site, repository, partial, alone=alone, background=background)
        self._metadata = Metadata(state)
        self._meeting = Meeting(state)
        self._segments = Segments(state, self._metadata, Joins(state, self._metadata))
        self._stripes = Stripes(state, self._segments)
        self._segments.on_gained = self._stripes.end
        self._assembly = Assembly(state, self._segments)
        self._leader = Leader(state, self._metadata, self._segments, self._stripes, self._assembly)
        self._report = Report(state.digest, state.layout.size)
        self._pause = trio.CancelScope()
        self.repository = repository
        self.place = place
        self.partial = partial
        self.digest = state.digest
        self.layout = state.layout
        self.plan = state.plan
        self.live = state.live
        self.ended = state.ended
        self.metas = self._metadata.known
        self.started_at = trio.current_time()
        self.is_behind: Callable[[], bool] = bool
        """Whether it is to leave the WAN to another transfer."""
        self.on_wan_left: Callable[[], None] = _nobody_waits
        """Called when others need leave the WAN to it no longer."""

        self._needs_wan = False

    # How it stands.

    @property
    def is_alone(self) -> bool:
        """Whether peers are left out, because an earlier attempt with them ended in wrong bytes."""
        return self._state.is_alone

    @property
    def is_background(self) -> bool:
        """Whether no client waits for it."""
        return self._state.is_background

    def become_urgent(self) -> None:
        """A client waits for it from now on."""
        self._state.is_background = False

    @property
    def bytes_at(self) -> float:
        """When bytes of it last came, to anybody as far as is known."""
        return self._state.bytes_at

    def is_beside(self, others_came_at: Callable[[], float]) -> None:
        """Be told when bytes last came of what the same source gives beside it."""
        self._state.others_came_at = others_came_at

    @property
    def is_using_wan(self) -> bool:
        return bool(self.plan.in_flight) or self._leader.is_leading

    @property
    def failure(self) -> P2pdError | None:
        """Why it ended, if not with the blob held."""
        return self._state.failure

    @property
    def last_fault(self) -> P2pdError | None:
        """What a source last said or did, where it failed."""
        return self._state.last_fault

    @property
    def is_peers_fault(self) -> bool:
        """Whether wrong bytes may be a peer's doing."""
        return self._metadata.is_hearsay

    @property
    def wan_bytes(self) -> int:
        """Bytes that this node fetched over the WAN for it."""
        return self._state.wan_bytes

    @property
    def bytes_before(self) -> int:
        """Bytes that an earlier run had assembled."""
        return self._assembly.bytes_before

    @property
    def bytes_held(self) -> int:
        """Bytes that are here and verified, in any order."""
        return min(self.layout.size, self.plan.have.bit_count() * self.layout.piece_length)

    @property
    def readable(self) -> int:
        """Bytes from the start on that readers get at once."""
        return self._assembly.readable

    @property
    def changed(self) -> trio.Event:
        """Set and replaced at the next change."""
        return self._state.changed

    # For the peer service.

    @property
    def progress(self) -> Progress:
        """How this node stands, for a peer."""
        return self._state.progress

    def due_report(self, now: float, turn: int) -> tuple[ProgressDelta, list[str]] | None:
        """What is to be told now, at report number `turn`, and which members."""
        plan, state, members = self.plan, self._state, list(self.plan.members)
        word = self._report.due(
            plan.have,
            plan.claimed,
            plan.way.value,
            now,
            waits=state.waits,
            is_large=state.choice.is_large,
            tell_gains=tells_gains(turn, len(members)),
        )
        if word is None:
            return None
        return word.delta, [node for node in members if word.for_all or plan.way_of(node) is not Way.NONE]

    def member_stands(self, node: str, progress: Progress) -> None:
        """A peer told how it stands."""
        self._meeting.stands(node, progress)

    def member_advances(self, node: str, delta: ProgressDelta) -> None:
        """A member tells what is new. Only the next decision depends on it, and that can wait for more."""
        if self._meeting.advances(node, delta):
            self._pause.deadline = min(self._pause.deadline, trio.current_time() + NEWS)

    def hear_meta(self, node: str, meta: SegmentMeta) -> None:
        """A peer's word on the metadata of a segment."""
        self._metadata.hear(node, meta)

    def peers_changed(self) -> None:
        """The set of live peers changed."""
        self._meeting.peers_changed()

    def poke(self) -> None:
        """Something that its decisions depend on changed."""
        self._state.poke()

    # Life.

    async def run(self) -> None:
        """Fetch, assemble, commit. Ends with the blob held, or with `failure` set; never raises P2pdError."""
        try:
            await self._assembly.resume()
            if self.failure is None:
                async with trio.open_nursery() as nursery:
                    self._state.run_in(nursery)
                    nursery.start_soon(self._drive)
                    await self._assembly.run()
                    nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._wind_up()

    async def _wind_up(self) -> None:
        state = self._state
        state.ended.set()
        if state.failure is None and state.site.store.size_of(self.digest) is None:
            state.failure = Unavailable(f"the transfer of {self.digest} was stopped: p2pd is shutting down")
        if state.failure is not None:
            self.partial.fail(state.failure)
        else:
            self.plan.have = mask_of(range(self.layout.stripe_count))
        state.live.set()
        state.site.peers.notify_nowait(self.plan.members, self.progress)
        # After a stop or a stall the next attempt begins with the pieces that are there.
        forget = not isinstance(state.failure, Unavailable)
        await self._segments.release_all(keep=state.failure is None, forget=forget)
        await self.partial.aclose()

    # Deciding.

    async def _drive(self) -> None:
        state = self._state
        if not state.is_alone:
            state.start_soon(self._meeting.keep_introducing)
            await self._meeting.wait_for_answers()
        if self.plan.open_way is Way.SEEDER:  # else nobody could say at once which bytes are right
            await self._segments.check_staged()
        decided_at = trio.current_time()
        while True:
            now = trio.current_time()
            if now > decided_at + TICK + HELD_UP:
                # This process stood still (stopped, or starved of CPU): that nothing came proves nothing.
                state.alive_at = now
                self.plan.stood_still(now)
            decided_at = now
            changed = state.changed
            wake_at = self._decide(now)
            with trio.move_on_at(min(wake_at or now + TICK, now + TICK)) as self._pause:
                await changed.wait()
                await trio.sleep_until(now + NEWS)

    def _decide(self, now: float) -> float | None:
        """Carry out one decision. When the next is due, if nothing changes before."""
        state, plan = self._state, self.plan
        plan.way_changed(state.choice.way(state.own_way(), plan.way_of), now)
        self._metadata.believe()
        window = plan.window()
        for index in window:
            self._segments.work_on(index)
        plan.seeder_is(now, is_cold=self._is_cold(window, now))
        # A cold seeder pulls an image's layers in turns: to leave one behind may leave the WAN idle.
        plan.is_behind = self.is_behind() and not plan.is_cold
        decision = plan.decide(now)
        for stripe in decision.fetch:
            self._stripes.start(stripe, now)
        for stripe in decision.drop:
            self._stripes.end(stripe)
        self._leader.lead_or_not(decision.lead)
        needed, self._needs_wan = self._needs_wan, plan.needs_wan(now)
        if needed and not self._needs_wan:
            self.on_wan_left()
        self._metadata.doubt_no_longer(now)
        self._check_stall(now)
        return decision.wake_at

    def _is_cold(self, window: range, now: float) -> bool:
        """Whether the seeder lacks bytes of the segment wanted next: hashes come with the last of them.

        It says whether it is still pulling the blob. An older one does not, nor one that is asked nothing:
        they are judged by time. One that has yet to answer is not: either of the two may be slow.
        """
        if not window or window[0] in self.metas:
            return False
        state = self._state
        if state.seeder_has is not None:
            return state.seeder_has is Holding.PULLING
        is_asked = self.plan.open_way is Way.SEEDER
        return (state.seeder_answered or not is_asked) and now - self.started_at > WARM_WITHIN

    def _check_stall(self, now: float) -> None:
        state, plan = self._state, self.plan
        if state.is_yielding:
            state.alive_at = now
            state.live.set()
            return
        fault = state.last_fault
        has_source = plan.way is not Way.NONE or any(plan.members) or any(plan.holders)
        if not has_source and not state.live.is_set() and isinstance(fault, REFUSALS):
            state.fail(fresh(fault))
            return
        allowed = STALL if has_source else STALL_WITHOUT_SOURCE
        if now - state.alive_at > allowed:
            if not has_source and isinstance(fault, WrongContent):
                state.fail(fresh(fault))
                return
            reason = f" (last: {fault})" if fault else ""
            state.fail(Unavailable(f"no source brought a byte of {self.digest} for {allowed:.0f} s{reason}"))
