"""What a transfer asks by `Join`: the piece hashes of its segments, and who gives pieces of them."""

from __future__ import annotations

from collections import Counter

import structlog
import trio

from p2pd.app.metadata import Metadata
from p2pd.app.transfer_state import TransferState
from p2pd.decide.bits import mask_of
from p2pd.decide.ownership import object_key, owner, ranked
from p2pd.decide.plan import Way
from p2pd.model.errors import P2pdError
from p2pd.model.layout import SegmentMeta
from p2pd.model.messages import Join, Joined
from p2pd.ports.peers import Peer
from p2pd.ports.swarm import SwarmSegment

__all__ = ["Joins"]

log = structlog.get_logger()

META_PATIENCE = 6.0
"""Seconds after which a node that leaves the WAN to others asks the seeder for hashes all the same."""

SEEDER_FIRST = 0.5
"""Seconds that a seeder has to tell hashes before peers are asked, too: its word is the one that counts, and
where it has the bytes it is there before the first of theirs. A site of 16 asks 240 times less a segment."""

ASK_FOLLOWED = 0.5
"""Seconds after which followed fetchers are asked for hashes again, where the last one told nothing new."""

REPLY = 3.0
REJOIN = 2.0
SWARM_PEERS = 24
"""Peers a segment's torrent dials: a bounded set, by rendezvous rank, keeps large sites connected."""


class Joins:
    """Of one transfer: each segment's metadata first, then its torrent's peers."""

    def __init__(self, state: TransferState, metadata: Metadata) -> None:
        self._state = state
        self._metadata = metadata
        self._site = state.site

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
        began = trio.current_time()
        while index not in self._metadata.known:
            if self._state.choice.followed:
                await self._ask_followed(index)
                continue
            event = self._state.changed
            async with trio.open_nursery() as nursery:
                for peer in self._swarm_peers(index):
                    if peer.node_id not in asked:
                        asked.add(peer.node_id)
                        nursery.start_soon(self._ask_for_hashes, peer, index)
            with trio.move_on_after(REJOIN) as timer:
                await event.wait()
            # Who asks no seeder has nobody else to hear it from, however much goes on meanwhile.
            is_late = trio.current_time() - began >= REJOIN and self._state.plan.open_way is not Way.SEEDER
            if timer.cancelled_caught or is_late:
                asked.clear()
                began = trio.current_time()

    async def _ask_followed(self, index: int) -> None:
        """One followed fetcher after the other, while there are any: a hundred nodes ask each of them.

        The first tells the hashes, the next whether its own are the same, which is all that `believed` needs.
        """
        times: Counter[str] = Counter()
        while (followed := self._state.choice.followed) and index not in self._metadata.known:
            words, live = self._metadata.heard(index), self._site.live()
            silent = (followed & live.keys()) - words.keys()
            if silent:
                order = ranked(object_key(f"hashes {self._site.me} {index} {self._state.digest}"), silent)
                node = min(order, key=times.__getitem__)
                times[node] += 1
                known = next((word for other, word in words.items() if other in followed), None)
                await self._ask_for_hashes(live[node], index, known)
            if len(self._metadata.heard(index)) == len(words):
                await trio.sleep(ASK_FOLLOWED)

    async def _ask_for_hashes(self, peer: Peer, index: int, known: SegmentMeta | None = None) -> None:
        """`known`: another's word, which this peer is asked to confirm or to contradict."""
        state = self._state
        fingerprint = b"" if known is None else known.fingerprint
        reply = await self._ask(peer, Join(state.digest, state.layout.size, index, fingerprint=fingerprint))
        if reply is None:
            return
        if reply.is_same and known is not None:
            self._metadata.hear(peer.node_id, known)
        elif reply.piece_hashes is not None:
            meta = SegmentMeta(state.digest, state.layout.size, index, reply.piece_hashes)
            self._metadata.hear(peer.node_id, meta)

    async def _ask_seeder(self, index: int) -> None:
        """Every node asks for itself: a few hundred bytes, and the one word on hashes that it can trust.

        One of them tells the others, for those that do not reach a seeder. In a large site that is left to
        those that ask: who fetches nothing listens to the fetchers first (`Choice.believed`).
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
                    log.debug("joins.no_metadata", digest=str(state.digest), reason=str(error))
                    state.poke()
                else:
                    self._metadata.learn(meta, announce=self._owns_meta(index))
                    return
            await trio.sleep(1)

    def _owns_meta(self, index: int) -> bool:
        plan = self._state.plan
        if self._state.choice.is_large:
            return False
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
        return bool(plan.holders) or bool(lacking & self._state.elsewhere)

    async def _next_holder_or_member(self, joined: set[str]) -> None:
        """Return when there is somebody to join who was not there before."""
        plan = self._state.plan
        known = {*plan.members, *plan.holders} | joined
        while not {*plan.members, *plan.holders} - known:
            await self._state.changed.wait()

    async def _join_into(
        self, peer: Peer, index: int, segment: SwarmSegment, joined: set[str], ever_joined: set[str]
    ) -> None:
        state = self._state
        reply = await self._ask(peer, Join(state.digest, state.layout.size, index, knows_hashes=True))
        if reply is None or not reply.loaded:
            return
        segment.connect(peer.host, peer.swarm_port)
        joined.add(peer.node_id)
        if peer.node_id not in ever_joined:
            ever_joined.add(peer.node_id)
            state.plan.connected(trio.current_time())

    def _swarm_peers(self, index: int) -> list[Peer]:
        plan = self._state.plan
        live = self._site.live()
        nodes = [node for node in {*plan.members, *plan.holders} if node in live]
        if len(nodes) > SWARM_PEERS:
            key = object_key(f"swarm {self._site.me} {index} {self._state.digest}")
            nodes = ranked(key, nodes)[:SWARM_PEERS]
        return [live[node] for node in nodes]

    async def _ask(self, peer: Peer, request: Join) -> Joined | None:
        try:
            reply = await self._site.peers.request(peer.node_id, request, REPLY)
        except P2pdError as error:
            log.debug("joins.failed", peer=peer.node_id, reason=str(error))
            return None
        return reply if isinstance(reply, Joined) else None
