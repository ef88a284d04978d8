"""The LAN of a simulated site: pieces go to random nodes that lack them, a few at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial

from benchmarks.simulator.events import Events
from benchmarks.simulator.node import UPLOADS, Node
from p2pd.decide.bits import iter_bits

__all__ = ["Lan"]

RETRY = 1.0
SLOW_AFTER = 1.0


class Lan:
    """`piece_time`: seconds that a piece takes of a node that gives `UPLOADS` at a time.

    `reaches(giver, taker)` says who hears whom, `gained(taker, stripe)` is told what arrived.
    """

    def __init__(
        self,
        events: Events,
        rng: random.Random,
        nodes: list[Node],
        stripes: Iterable[int],
        *,
        piece_time: float,
        latency: float,
        reaches: Callable[[Node, Node], bool],
        gained: Callable[[Node, int], None],
    ) -> None:
        self._events = events
        self._random = rng
        self._nodes = nodes
        self._lacking: dict[int, list[Node]] = {stripe: [] for stripe in stripes}
        self._open = 0
        self._piece_time = piece_time
        self._latency = latency
        self._reaches = reaches
        self._gained = gained

    def is_lacking(self, node: Node, stripe: int) -> bool:
        """Whether anybody may give it the stripe."""
        return node in self._lacking[stripe]

    def lacks(self, node: Node, stripe: int) -> None:
        self._lacking[stripe].append(node)
        self._open |= 1 << stripe

    def lacks_no_more(self, node: Node, stripe: int) -> None:
        self._lacking[stripe].remove(node)
        self._close(stripe)

    def _close(self, stripe: int) -> None:
        if not self._lacking[stripe]:
            self._open &= ~(1 << stripe)

    def kick(self) -> None:
        for node in self._nodes:
            if node.alive and node.have:
                self.give(node)

    def give(self, node: Node) -> None:
        """Start what uploads the node has room for."""
        if not node.on_lan or not node.alive:
            return
        if node.uploads >= node.slots:
            return
        wanted = node.have & self._open
        if node.uplink < 1:
            # Whoever has little to give gives what nobody got from it yet; takers pass that on.
            wanted = wanted & ~node.given or wanted
        for stripe in iter_bits(wanted):
            lacking = self._lacking[stripe]
            while lacking and node.uploads < node.slots:
                at = self._random.randrange(len(lacking))
                taker = lacking[at]
                if not self._reaches(node, taker):
                    if not any(self._reaches(node, other) for other in lacking):
                        break
                    continue
                lacking[at] = lacking[-1]
                lacking.pop()
                self._close(stripe)
                self._send(node, taker, stripe)
            if node.uploads >= node.slots:
                return

    def _send(self, giver: Node, taker: Node, stripe: int) -> None:
        giver.uploads += 1
        giver.given |= 1 << stripe
        taker.receiving |= 1 << stripe
        lives = giver.life, taker.life
        seconds = self._piece_time
        if giver.uplink < 1:
            seconds *= 1 / UPLOADS / giver.uplink
            self._events.after(SLOW_AFTER, partial(self._ask_others, taker, stripe, taker.life))
        self._events.after(seconds + self._latency, partial(self._arrive, giver, taker, stripe, lives))

    def _arrive(self, giver: Node, taker: Node, stripe: int, lives: tuple[int, int]) -> None:
        if giver.life == lives[0]:
            giver.uploads -= 1
        if taker.life == lives[1]:
            is_awaited = bool(taker.receiving >> stripe & 1)
            taker.receiving &= ~(1 << stripe)
            came = giver.life == lives[0] and self._reaches(giver, taker)
            if taker.have >> stripe & 1:
                pass
            elif came:
                if not is_awaited:
                    self.lacks_no_more(taker, stripe)
                self._gained(taker, stripe)
            elif is_awaited:
                self.lacks(taker, stripe)
                self._events.after(RETRY, self.kick)
        self.give(giver)

    def _ask_others(self, taker: Node, stripe: int, life: int) -> None:
        """A piece that comes slowly is taken from whoever has it first."""
        if taker.life == life and taker.receiving >> stripe & 1:
            taker.receiving &= ~(1 << stripe)
            self.lacks(taker, stripe)
            self.kick()
