"""How a transfer meets the site: who wants or holds the blob, how they stand, metadata, torrent peers."""

from __future__ import annotations

import math

import structlog
import trio

from p2pd.app.metadata import Metadata
from p2pd.app.transfer_state import TransferState
from p2pd.decide.bits import bytes_to_bits, mask_of, run_to_bits
from p2pd.decide.circle import ALIKE, MESH, NEIGHBOURS, Circle
from p2pd.decide.ownership import first, object_key, owner, ranked
from p2pd.decide.plan import Way
from p2pd.model.errors import P2pdError
from p2pd.model.layout import SegmentMeta
from p2pd.model.messages import (
    Interest,
    Interested,
    Join,
    Joined,
    Progress,
    ProgressDelta,
    Want,
    Wanted,
    WantReply,
)
from p2pd.ports.peers import Peer
from p2pd.ports.swarm import SwarmSegment

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
META_PATIENCE = 6.0
"""Seconds after which a node that leaves the WAN to others asks the seeder for hashes all the same."""

SEEDER_FIRST = 0.5
"""Seconds that a seeder has to tell hashes before peers are asked, too: its word is the one that counts, and
where it has the bytes it is there before the first of theirs. A site of 16 asks 240 times less a segment."""

ASK_FOLLOWED = 0.5
ALL_FOLLOWED = 3
"""In every such round all followed fetchers are asked for hashes, else as many as must say the same."""

REPLY = 3.0
REJOIN = 2.0
SWARM_PEERS = 24
"""Peers a segment's torrent dials: a bounded set, by rendezvous rank, keeps large sites connected."""


class Meeting:
    """What peers are asked and told for one transfer."""

    def __init__(self, state: TransferState, metadata: Metadata) -> None:
        self._state = state
        self._metadata = metadata
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
        self._elsewhere = 0
        """Stripes that some member was ever heard to have."""
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
            self._elsewhere |= have
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
        self._elsewhere |= gained
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
        live = self._live().keys()
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
                live = self._live()
                plan = self._state.plan
                for node in {*plan.members, *plan.holders} - live.keys():
                    plan.member_left(node)
                    self._state.poke()
                for nodes in (self._announced, self._introduced, self._strangers):
                    nodes &= live.keys()
                await self._announce(live)
                unanswered = self._introduce_new(live, nursery)
                # One that holds the blob but was too busy to say so is heard of in no other way.
                with trio.move_on_after(REPLY + REJOIN if unanswered else math.inf):
                    await event.wait()
                if len(live) > MESH:
                    # In a large site many come at once, and each makes it choose anew.
                    await trio.sleep(GATHER)

    def _live(self) -> dict[str, Peer]:
        return {peer.node_id: peer for peer in self._site.peers.live()}

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

    # Metadata.

    async def obtain_meta(self, index: int) -> SegmentMeta:
        """Wait until the metadata of a segment is known, asking whoever may know it."""
        async with trio.open_nursery() as nursery:
            if not self._state.is_alone:
                nursery.start_soon(self._ask_peers, index)
            nursery.start_soon(self._ask_seeder, index)
            while index not in self._metadata.known:
                changed = self._state.changed
                if index not in self._metadata.known:
                    await changed.wait()
            nursery.cancel_scope.cancel()
        return self._metadata.known[index]

    async def _ask_peers(self, index: int) -> None:
        if self._state.plan.open_way is Way.SEEDER:
            await trio.sleep(SEEDER_FIRST)
        asked: set[str] = set()
        rounds = 0
        while True:
            if followed := self._state.choice.followed:
                async with trio.open_nursery() as nursery:
                    for peer in self._followed_to_ask(index, followed, rounds):
                        nursery.start_soon(self._join, peer, index, None)
                rounds += 1
                await trio.sleep(ASK_FOLLOWED)
                continue
            event = self._state.changed
            async with trio.open_nursery() as nursery:
                for peer in self._swarm_peers(index):
                    if peer.node_id not in asked:
                        asked.add(peer.node_id)
                        nursery.start_soon(self._join, peer, index, None)
            with trio.move_on_after(REJOIN) as timer:
                await event.wait()
            if timer.cancelled_caught:
                asked.clear()

    def _followed_to_ask(self, index: int, followed: frozenset[str], rounds: int) -> list[Peer]:
        """Mostly no more than must say the same: a hundred nodes ask each fetcher."""
        heard, live = self._metadata.heard_from(index) & followed, self._live()
        silent = (followed & live.keys()) - heard
        is_for_all = rounds % ALL_FOLLOWED == ALL_FOLLOWED - 1
        count = len(silent) if is_for_all else max(1, ALIKE - len(heard))
        key = object_key(f"hashes {self._site.me} {index} {self._state.digest}")
        return [live[node] for node in first(key, silent, count)]

    async def _ask_seeder(self, index: int) -> None:
        """Every node asks for itself: a few hundred bytes, and the one word on hashes that it can trust.

        One of them tells the others, for those that do not reach a seeder. In a large site those that
        fetch nothing listen to the fetchers first (`Choice.believed`).
        """
        state = self._state
        began = trio.current_time()
        while True:
            is_late = trio.current_time() - began >= META_PATIENCE
            if state.plan.open_way is Way.SEEDER or (is_late and state.own_way() is Way.SEEDER):
                # The first answer is to tell at once whether the seeder has the blob. Once is enough.
                is_patient = state.seeder_has is not None or index not in state.plan.window()[:1]
                try:
                    meta = await self._site.wan.segment(
                        state.repository,
                        state.digest,
                        state.layout.size,
                        index,
                        state.seeder_said,
                        is_patient=is_patient,
                    )
                except P2pdError as error:
                    log.debug("meeting.no_metadata", digest=str(state.digest), reason=str(error))
                    state.poke()
                else:
                    self._metadata.learn(meta, announce=self._owns_meta(index))
                    return
            await trio.sleep(1)

    def _owns_meta(self, index: int) -> bool:
        plan = self._state.plan
        nodes = [self._site.me, *plan.members_by(Way.SEEDER)]
        return owner(object_key(f"meta {index} {self._state.digest}"), nodes) == self._site.me

    # Torrent peers.

    async def join_peers(self, index: int, segment: SwarmSegment) -> None:
        """Dial the peers that have the segment loaded, again when nothing comes from them."""
        joined: set[str] = set()
        ever_joined: set[str] = set()
        had = -1
        while not segment.is_complete:
            if len(segment.have) == had and self._is_owed(index):
                joined.clear()
            had = len(segment.have)
            async with trio.open_nursery() as nursery:
                for peer in self._swarm_peers(index):
                    if peer.node_id not in joined:
                        nursery.start_soon(self._join_into, peer, index, segment, joined, ever_joined)
            with trio.move_on_after(REJOIN):
                await self._next_holder_or_member(joined)

    def _is_owed(self, index: int) -> bool:
        """Whether anybody may have what this node lacks of the segment: else asking again brings nothing."""
        plan = self._state.plan
        lacking = mask_of(self._state.layout.stripes_of(index)) & ~plan.have
        return bool(plan.holders) or bool(lacking & self._elsewhere)

    async def _next_holder_or_member(self, joined: set[str]) -> None:
        """Return when there is somebody to join who was not there before."""
        plan = self._state.plan
        known = {*plan.members, *plan.holders} | joined
        while not {*plan.members, *plan.holders} - known:
            await self._state.changed.wait()

    async def _join_into(
        self, peer: Peer, index: int, segment: SwarmSegment, joined: set[str], ever_joined: set[str]
    ) -> None:
        if await self._join(peer, index, segment):
            joined.add(peer.node_id)
            if peer.node_id not in ever_joined:
                ever_joined.add(peer.node_id)
                self._state.plan.connected(trio.current_time())

    async def _join(self, peer: Peer, index: int, segment: SwarmSegment | None) -> bool:
        state = self._state
        message = Join(state.digest, state.layout.size, index, segment is not None)
        try:
            reply = await self._site.peers.request(peer.node_id, message, REPLY)
        except P2pdError as error:
            log.debug("meeting.join_failed", peer=peer.node_id, reason=str(error))
            return False
        if not isinstance(reply, Joined):
            return False
        if reply.piece_hashes is not None and segment is None:
            meta = SegmentMeta(state.digest, state.layout.size, index, reply.piece_hashes)
            self._metadata.hear(peer.node_id, meta)
        if reply.loaded and segment is not None:
            segment.connect(peer.host, peer.swarm_port)
        return reply.loaded

    def _swarm_peers(self, index: int) -> list[Peer]:
        plan = self._state.plan
        live = self._live()
        nodes = [node for node in {*plan.members, *plan.holders} if node in live]
        if len(nodes) > SWARM_PEERS:
            key = object_key(f"swarm {self._site.me} {index} {self._state.digest}")
            nodes = ranked(key, nodes)[:SWARM_PEERS]
        return [live[node] for node in nodes]
