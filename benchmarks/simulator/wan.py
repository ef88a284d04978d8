"""The WAN of a simulated site: a fluid, shared evenly among the requests in flight."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.simulator.events import Events
from benchmarks.simulator.node import Flow, Node

__all__ = ["Wan"]


class Wan:
    """`rate` in bytes a second; 0 hangs what is in flight.

    `ended` is called with each flow whose last byte came. `bytes` counts all that crossed, by whatever way.
    """

    def __init__(self, events: Events, rate: float, ended: Callable[[Flow], None]) -> None:
        self.rate = rate
        self.bytes = 0.0
        self._events = events
        self._ended = ended
        self._flows: list[Flow] = []
        self._flowed_at = 0.0
        self._turn = 0

    def set_rate(self, rate: float) -> None:
        self._flow()
        self.rate = rate
        self._reflow()

    def set_cap(self, node: Node, rate: float) -> None:
        """The most that this node takes."""
        self._flow()
        node.cap = rate
        self._reflow()

    def begin(self, flow: Flow) -> None:
        self._flow()
        self._flows.append(flow)
        self._reflow()

    def drop(self, flows: list[Flow]) -> None:
        if flows:
            self._flow()
            self._flows = [flow for flow in self._flows if flow not in flows]
            self._reflow()

    def drop_all_of(self, node: Node) -> None:
        self.drop([flow for flow in self._flows if flow.node is node])

    def _flow(self) -> None:
        """Account for the bytes that came since the last change of rates."""
        seconds = self._events.now - self._flowed_at
        self._flowed_at = self._events.now
        for flow in self._flows:
            came = min(flow.left, flow.rate * seconds)
            flow.left -= came
            self.bytes += came

    def _reflow(self) -> None:
        left = self.rate
        rates = sorted(self._flows, key=lambda flow: flow.node.cap)
        for i, flow in enumerate(rates):
            mine = sum(other.node is flow.node for other in rates) if flow.node.cap < left else 1
            flow.rate = min(left / (len(rates) - i), flow.node.cap / mine)
            left -= flow.rate
        self._turn += 1
        turn = self._turn
        ends = min((flow.left / flow.rate for flow in rates if flow.rate > 0), default=None)
        if ends is not None:
            self._events.after(ends + 1e-9, lambda: self._end(turn))

    def _end(self, turn: int) -> None:
        if turn != self._turn:
            return
        self._flow()
        ended = [flow for flow in self._flows if flow.left < 1]
        self._flows = [flow for flow in self._flows if flow.left >= 1]
        self._reflow()
        for flow in ended:
            self._ended(flow)
