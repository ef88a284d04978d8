"""The delivery of a transfer: what is readable is appended, in order, to the Partial that clients read."""

from __future__ import annotations

import structlog
import trio

from p2pd.app.segments import Segments
from p2pd.app.transfer_state import TransferState
from p2pd.decide.bits import mask_of
from p2pd.model.errors import P2pdError
from p2pd.model.layout import SEGMENT

__all__ = ["Assembly"]

log = structlog.get_logger()

DRIP = 1.0
"""Seconds after which pieces are delivered although their segment is not whole yet. Half of that cost a
twentieth more CPU where CPU is short; without it each segment's end would be a burst of work everywhere."""


class Assembly:
    """The blob's file on this node. Who appends to it holds `writer`: this, or a leader's stream."""

    def __init__(self, state: TransferState, segments: Segments) -> None:
        self._state = state
        self._segments = segments
        self.writer = trio.Lock()
        self.bytes_before = 0
        """Bytes that an earlier run had assembled."""

    @property
    def readable(self) -> int:
        """Bytes from the start on that readers get at once: not the last stripe, before all is checked."""
        layout = self._state.layout
        return min(self._state.partial.frontier, layout.stripe(layout.stripe_count - 1).start)

    async def resume(self) -> None:
        """Hash again what an earlier run left. Readers get it meanwhile: for a large layer it takes long."""
        state = self._state
        try:
            is_more = True
            while is_more and state.failure is None:
                is_more = await state.partial.resume()
                if self.readable:
                    state.live.set()
        except P2pdError as error:
            state.fail(error)
        self.bytes_before = state.partial.frontier
        state.plan.resumed(mask_of(range(self.bytes_before // state.layout.piece_length)))
        state.alive_at = trio.current_time()
        log.info(
            "transfer.begins",
            digest=str(state.digest),
            repository=str(state.repository),
            bytes=state.layout.size,
            had=self.bytes_before,
        )

    async def run(self) -> None:
        """Append until all is there, then commit."""
        state = self._state
        due = trio.current_time() + DRIP
        try:
            while state.partial.frontier < state.layout.size:
                grown = state.grown
                async with self.writer:
                    appended = await self._append_next(is_due=trio.current_time() >= due)
                now = trio.current_time()
                if appended:
                    due = now + DRIP
                    state.poke()
                    continue
                with trio.move_on_at(due if due > now else now + DRIP):
                    await grown.wait()
            await state.partial.commit()
        except P2pdError as error:
            state.fail(error)

    async def _append_next(self, *, is_due: bool) -> bool:
        """Append a whole segment if there is one, else its next pieces if clients have waited long enough."""
        state, partial = self._state, self._state.partial
        index = partial.frontier // SEGMENT
        segment = self._segments.loaded(index)
        if segment is None:
            return False
        cut = segment.meta.segment
        path = state.site.store.staged_path(state.digest, index)
        if len(segment.readable) == cut.piece_count:
            await partial.append_segment(path, segment.meta)
            await self._segments.release(index, keep=True)
            return True
        first = pieces = (partial.frontier - cut.offset) // cut.piece_length
        while pieces in segment.readable:
            pieces += 1
        if pieces == first or not is_due:
            return False
        await partial.append_segment(path, segment.meta, pieces)
        return True
