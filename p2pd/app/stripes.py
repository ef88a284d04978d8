"""The WAN plane of a transfer: its stripes in flight, a range request each, and how they end."""

from __future__ import annotations

from collections.abc import Callable

import trio

from p2pd.app.segments import Segments
from p2pd.app.transfer_state import TransferState
from p2pd.app.wan import Reader
from p2pd.decide.plan import Way
from p2pd.model.errors import Denied, NotFound, P2pdError, RateLimited, WrongContent

__all__ = ["Stripes"]


class Stripes:
    """A task each. What comes is handed to `segments`; of what fails the plan is told when to try again."""

    def __init__(self, state: TransferState, segments: Segments) -> None:
        self._state = state
        self._segments = segments
        self._in_flight: dict[int, trio.CancelScope] = {}

    def start(self, stripe: int, now: float) -> None:
        """Fetch it."""
        self._state.plan.started(stripe, now)
        self._state.start_soon(self._fetch, stripe)

    def end(self, stripe: int) -> None:
        """Fetch it no longer, if it is in flight: its bytes are here, or left to others."""
        scope = self._in_flight.pop(stripe, None)
        if scope is not None:
            scope.cancel()

    async def read(self, stripe: int) -> bytes:
        """Read one stripe by this node's way over the WAN. Raises P2pdError."""
        state = self._state
        cut = state.layout.stripe(stripe)
        span = (cut.start, cut.stop)
        return await state.site.wan.read_range(
            state.plan.open_way,
            state.repository,
            state.digest,
            state.layout.size,
            span,
            Reader(
                self._counter(stripe, (cut.stop - cut.start) // 2), state.others_came_at, state.seeder_said
            ),
        )

    def _counter(self, stripe: int, half: int) -> Callable[[int], None]:
        """What is told of each byte that comes of a stripe."""
        state, missing = self._state, half

        def bytes_came(count: int) -> None:
            nonlocal missing
            state.bytes_came(count)
            if missing > 0:
                missing -= count
                if missing <= 0:
                    state.plan.half_came(stripe, trio.current_time())

        return bytes_came

    def take(self, stripe: int, data: bytes) -> None:
        """A stripe came over the WAN."""
        state = self._state
        state.wan_bytes += len(data)
        if state.plan.is_at_site(stripe):
            state.site.metrics.wan_duplicate_bytes.inc(len(data))
        state.plan.received(stripe, trio.current_time())
        if not state.plan.have >> stripe & 1:  # else it came over the LAN meanwhile, and nobody would take it
            self._segments.take(stripe, data)

    async def _fetch(self, stripe: int) -> None:
        with trio.CancelScope() as scope:
            self._in_flight[stripe] = scope
            await self._read_and_take(stripe)
        if self._in_flight.get(stripe) is scope:
            del self._in_flight[stripe]
        self._state.poke()

    async def _read_and_take(self, stripe: int) -> None:
        try:
            data = await self.read(stripe)
        except P2pdError as error:
            self._failed(stripe, error)
        else:
            self.take(stripe, data)

    def _failed(self, stripe: int, error: P2pdError) -> None:
        state = self._state
        state.note_fault(error)
        if state.plan.open_way is Way.SEEDER:
            if isinstance(error, WrongContent):
                # The origin's bytes are wrong: to lead them to this site once more mends nothing.
                state.fail(error)
            state.is_refused_by_seeder |= isinstance(error, NotFound | Denied)
        retry = (error.retry_after or 1.0) if isinstance(error, RateLimited) else 1.0
        state.plan.failed(stripe, trio.current_time(), retry)
