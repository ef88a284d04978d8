"""The metadata of a blob's segments, as a transfer comes to know it, and how far it is trusted."""

from __future__ import annotations

import trio

from p2pd.app.transfer_state import TransferState
from p2pd.decide.hearsay import Hearsay
from p2pd.decide.plan import Way
from p2pd.model.layout import SegmentMeta
from p2pd.model.messages import SegmentReady

__all__ = ["Metadata"]

HELD_BACK = 15.0
"""Seconds for which clients are given nothing that only peers vouch for. From a peer that holds a blob it
comes whole in that time; no runtime gives up sooner."""


class Metadata:
    """What is `known`, by segment. The first word that counts on each stays."""

    def __init__(self, state: TransferState) -> None:
        self._state = state
        self.known: dict[int, SegmentMeta] = {}
        self.is_hearsay = False
        """Whether wrong bytes may be a peer's doing: what fits hashes from a seeder is the seeder's."""
        self._hearsay = Hearsay()
        self._doubted_at: float | None = None

    def learn(self, meta: SegmentMeta, *, announce: bool) -> None:
        """Metadata from a seeder, or of this node's own making."""
        state = self._state
        if not self._fits(meta) or meta.index in self.known:
            return
        self.known[meta.index] = meta
        self._hearsay.forget(meta.index)
        if announce:
            notice = SegmentReady(meta.digest, meta.blob_size, meta.index, meta.piece_hashes)
            state.site.peers.notify_nowait(state.plan.members, notice)
        state.poke()

    def hear(self, node: str, meta: SegmentMeta) -> None:
        """A peer's word. It counts only where this node cannot, or should not, ask a seeder, or gets no
        answer from it.

        Pieces that fit wrong hashes would be delivered before the whole sha256 can be judged: what they
        vouch for is held back until that is known, or for `HELD_BACK` seconds.
        """
        if self._fits(meta) and meta.index not in self.known:
            self._hearsay.heard(node, meta, trio.current_time())
            self.believe()

    def heard(self, index: int) -> dict[str, SegmentMeta]:
        """The words on a segment that are not believed yet, by the peer that said each."""
        return self._hearsay.words(index)

    def believe(self) -> None:
        """Take the peers' words that count by now."""
        state, now = self._state, trio.current_time()
        beliefs = self._hearsay.believed(
            state.choice,
            state.plan.holders,
            now,
            is_asking=state.plan.open_way is Way.SEEDER,
            could_ask=state.own_way() is Way.SEEDER,
        )
        for belief in beliefs:
            if belief.meta.index in self.known:
                continue
            self.learn(belief.meta, announce=False)
            self.is_hearsay = True
            if belief.is_doubtful and self._doubted_at is None:
                self._doubted_at = now
                state.partial.hold_back(True)

    def _fits(self, meta: SegmentMeta) -> bool:
        """Whether it is of this blob as this node knows it; a peer may think otherwise of its size."""
        return meta.blob_size == self._state.layout.size and meta.is_consistent

    def doubt_no_longer(self, now: float) -> None:
        """Let clients have what only peers vouch for, where they have waited as long as they can."""
        if self._doubted_at is not None and now - self._doubted_at > HELD_BACK:
            self._state.partial.hold_back(False)
