"""How a transfer meets the site: who wants or holds the blob, and how they stand."""

from __future__ import annotations

import math

import structlog
import trio

from p2pd.app.transfer_state import TransferState
from p2pd.decide.bits import bytes_to_bits, mask_of, run_to_bits
from p2pd.decide.circle import MESH, NEIGHBOURS, Circle
from p2pd.decide.ownership import first, object_key
from p2pd.decide.plan import Way
from p2pd.model.errors import P2pdError
from p2pd.model.messages import (
    Interest,
    Interested,
    Progress,
    ProgressDelta,
    Want,
    Wanted,
    WantReply,
)
from p2pd.ports.peers import Peer

__all__ = ["Meeting"]

log = structlog.get_logger()

INTRODUCTION = 0.3
"""Seconds the first introductions may hold up the first request over the WAN, after the last answer."""

INTRODUCTIONS = 1.2
"""The same in all. Where nodes are short of CPU answers trickle in, and who begins before it has heard of the
others takes what is theirs for its own. Longer, for `REPLY`, only for those that asked this node when it was
not fetching yet: what they have begun since may be its own, where nobody holds the blob."""

GATHER = 0.25
"""Seconds for which a large site's news of who is interested is gathered."""

ASKED = 2
"""Peers that are asked who is interested, where not everybody is told."""

REPLY = 3.0
ASK_AGAIN = 2.0
"""Seconds after which a peer that gave no answer is asked again."""


class Meeting:
    """What peers are asked and told for one transfer."""

    def __init__(self, state: TransferState) -> None:
        self._state = state
        self._site = state.site
        self._circle = Circle(state.digest, self._site.me)
        state.choice = self._circle.choose()
        self._announced: set[str] = set()
        self._introducing: set[str] = set()
        self._introduced: set[str] = set()
        self._strangers: set[str] = set()
        self._expected: set[str] = set()
        self._asked_before: set[str] = set()
        self._answered = trio.Event()
        """Set when all that were there at first gave an answer, or none in time."""
        self._patience = trio.CancelScope()
        self._began_at = trio.current_time()
        self._peers_changed = trio.Event()

    def peers_changed(self) -> None:
        """The set of live peers changed, or what is known of them."""
        self._peers_changed.set()
        self._peers_changed = trio.Event()

    def stands(self, node: str, progress: Progress) -> None:
        """A peer told how it stands."""
        state = self._state
        if progress.size != state.layout.size or state.is_alone:
            return
        count, now = state.layout.stripe_count, trio.current_time()
        have = bytes_to_bits(progress.have, count)
        if progress.done and have == mask_of(range(count)):
            state.plan.holder_found(node, now)
        elif progress.done:
            state.plan.member_left(node)
        else:
            claimed, moved_at = bytes_to_bits(progress.claimed, count), state.plan.site_moved_at
            state.plan.member_progress(node, have, claimed, Way(progress.wan), now)
            state.elsewhere |= have
            self._hear_of_bytes(have, claimed, moved_at, waits=progress.waits)
        state.poke()

    def advances(self, node: str, delta: ProgressDelta) -> bool:
        """A member tells what is new. Whether it is anything for the next decision."""
        state = self._state
        if delta.size != state.layout.size or state.is_alone:
            return False
        gained = run_to_bits(delta.gained_from, delta.gained)
        flying, now = run_to_bits(delta.flying_from, delta.flying), trio.current_time()
        moved_at = state.plan.site_moved_at
        if not state.plan.member_advanced(node, gained, flying, Way(delta.wan), now):
            self._meet_again(node)
            return False
        state.elsewhere |= gained
        self._hear_of_bytes(gained, flying, moved_at, waits=delta.waits)
        return True

    def _hear_of_bytes(self, have: int, claimed: int, moved_at: float, *, waits: bool) -> None:
        """Whether a member's word, before which the site had last moved at `moved_at`, tells of bytes.

        Claims do, too: a leader's first segment may take long on a slow WAN. But where the WAN hangs, all
        claim one stripe after the other, and none gets anything.
        """
        state = self._state
        if have or (claimed and not waits):
            state.live.set()
        if claimed and not waits:
            state.bytes_came_elsewhere()
        if state.plan.site_moved_at > moved_at and not waits:
            state.alive_at = state.plan.site_moved_at

    def _meet_again(self, node: str) -> None:
        """A peer counts us as a member and is none to us: our introduction did not get through."""
        if node not in self._state.plan.holders:
            self._introduced.discard(node)
            self._strangers.add(node)
            self.peers_changed()

    async def wait_for_answers(self) -> None:
        """Wait until those that were there first have said how they stand, but not for the slow ones."""
        self._began_at = trio.current_time()
        live = self._site.live().keys()
        if len(live) <= MESH:
            known = {*self._state.plan.members, *self._state.plan.holders}
            self._asked_before = self._site.interests.of(self._state.digest) & live - known
        with trio.move_on_at(self._patient_until()) as self._patience:
            await self._answered.wait()

    async def keep_introducing(self) -> None:
        """Meet peers, also those that come later or gave no answer, and forget those that went, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                event = self._peers_changed
                live = self._site.live()
                plan = self._state.plan
                for node in {*plan.members, *plan.holders} - live.keys():
                    plan.member_left(node)
                    self._state.poke()
                for nodes in (self._announced, self._introduced, self._strangers):
                    nodes &= live.keys()
                await self._announce(live)
                unanswered = self._introduce_new(live, nursery)
                # One that holds the blob but was too busy to say so is heard of in no other way.
                with trio.move_on_after(REPLY + ASK_AGAIN if unanswered else math.inf):
                    await event.wait()
                if len(live) > MESH:
                    # In a large site many come at once, and each makes it choose anew.
                    await trio.sleep(GATHER)

    async def _announce(self, live: dict[str, Peer]) -> None:
        """Large sites only: tell everybody in a word, and hear from two who did so before this node came."""
        if len(live) <= MESH:
            return
        self._site.peers.notify_nowait(live.keys() - self._announced, Wanted(self._state.digest))
        is_first, self._announced = not self._announced, set(live)
        if is_first:
            with trio.move_on_after(INTRODUCTION):
                async with trio.open_nursery() as nursery:
                    for node in self._near(live, ASKED):
                        nursery.start_soon(self._ask_interest, node)

    def _near(self, live: dict[str, Peer], count: int) -> list[str]:
        """Some peers, others for every node and blob."""
        return first(object_key(f"near {self._site.me} {self._state.digest}"), live, count)

    async def _ask_interest(self, node: str) -> None:
        digest = self._state.digest
        try:
            reply = await self._site.peers.request(node, Interest(digest), REPLY)
        except P2pdError as error:
            log.debug("meeting.no_answer", peer=node, reason=str(error))
            return
        if isinstance(reply, Interested):
            for other in reply.nodes:
                self._site.interests.note(digest, other)

    def _introduce_new(self, live: dict[str, Peer], nursery: trio.Nursery) -> bool:
        """Whether some of those whom it concerns have not answered yet."""
        # In a small site nobody announces anything: everybody may want or hold the blob.
        is_small = len(live) <= MESH
        interested = self._site.interests.of(self._state.digest) & live.keys()
        if not interested:
            # Somebody may hold it from before anybody was told so.
            interested = set(self._near(live, NEIGHBOURS))
        self._circle.update(set(live) if is_small else interested)
        self._state.choice = self._circle.choose()
        told = (self._state.choice.told | self._strangers) & live.keys()
        unanswered = told - self._introduced
        if is_small and not self._answered.is_set():
            self._state.plan.expect(unanswered - self._expected)
            self._expected |= unanswered
        for node in unanswered - self._introducing:
            self._introducing.add(node)
            nursery.start_soon(self._introduce, live[node])
        if not unanswered:
            self._answered.set()
        return bool(unanswered)

    async def _introduce(self, peer: Peer) -> None:
        state, node = self._state, peer.node_id
        try:
            reply = await self._site.peers.request(node, Want(state.progress), REPLY)
        except P2pdError as error:
            log.debug("meeting.no_answer", peer=node, reason=str(error))
            return
        finally:
            self._introducing.discard(node)
            if not self._introducing:
                self._answered.set()
            self._asked_before.discard(node)
            self._patience.deadline = self._patient_until()
            state.plan.expect_no_longer(node)
            state.poke()
        self._introduced.add(node)
        self._strangers.discard(node)
        if not isinstance(reply, WantReply):
            return
        if reply.held:
            state.plan.holder_found(node, trio.current_time())
        elif reply.progress is None:
            self._site.interests.forget(state.digest, node)
            if node in self._state.choice.followed:
                self.peers_changed()
        elif reply.progress.digest == state.digest:
            self.stands(node, reply.progress)
        self._patience.deadline = self._patient_until()

    def _patient_until(self) -> float:
        """Until when it pays to wait for more answers, where one just came."""
        if self._asked_before and not self._state.plan.holders:
            return self._began_at + REPLY
        return min(trio.current_time() + INTRODUCTION, self._began_at + INTRODUCTIONS)
