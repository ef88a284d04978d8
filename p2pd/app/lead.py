"""The node that plays the seeder where the site has none: it pulls the blob from the origin once.

Segments that some node already has metadata for are completed stripe by stripe (what the site
holds is not fetched again); the rest is one plain stream, hashed on the way, each segment handed
to the site as soon as it is whole. When the leader goes, the next in rank does the same from
where the site stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
import trio

from p2pd.app.assembly import Assembly
from p2pd.app.metadata import Metadata
from p2pd.app.segments import Segments
from p2pd.app.stripes import Stripes
from p2pd.app.transfer_state import TransferState
from p2pd.model.errors import Denied, NotFound, P2pdError, StoreError, Unavailable, WrongContent
from p2pd.model.layout import SEGMENT

__all__ = ["Leader"]

log = structlog.get_logger()

WAIT_FOR_LAN = 10.0


class Leader:
    """Leads while it is wanted: a task of the transfer, ended when another node is to lead."""

    def __init__(
        self,
        state: TransferState,
        metadata: Metadata,
        segments: Segments,
        stripes: Stripes,
        assembly: Assembly,
    ) -> None:
        self._state = state
        self._metadata = metadata
        self._segments = segments
        self._stripes = stripes
        self._assembly = assembly
        self._scope: trio.CancelScope | None = None

    @property
    def is_leading(self) -> bool:
        return self._scope is not None

    def lead_or_not(self, wanted: bool) -> None:
        """Begin, go on or end."""
        if wanted and self._scope is None:
            self._scope = trio.CancelScope()
            self._state.start_soon(self._lead, self._scope)
        elif not wanted and self._scope is not None:
            self._scope.cancel()
            self._scope = None

    async def _lead(self, scope: trio.CancelScope) -> None:
        state = self._state
        log.info("transfer.leads", digest=str(state.digest), repository=str(state.repository))
        with scope:
            try:
                await self._bring_all()
            except P2pdError as error:
                state.note_fault(error)
                if isinstance(error, NotFound | Denied | WrongContent | StoreError):
                    state.fail(error)
                await trio.sleep(1)
        if self._scope is scope:
            self._scope = None
            state.poke()

    async def _bring_all(self) -> None:
        """Bring the whole blob to this node (and so to the site). Raises P2pdError; progress is kept."""
        partial = self._state.partial
        while partial.frontier < self._state.layout.size:
            index = partial.frontier // SEGMENT
            if index in self._metadata.known:
                await self._complete(index)
            else:
                async with self._assembly.writer:
                    await self._stream(self._next_known(index))

    def _next_known(self, index: int) -> int:
        """Where the next segment begins whose metadata is known, or the end of the blob."""
        known = [other * SEGMENT for other in self._metadata.known if other > index]
        return min([*known, self._state.layout.size])

    async def _complete(self, index: int) -> None:
        """Fetch the stripes of a segment that nobody on the site has; wait for the rest over the LAN."""
        state, plan = self._state, self._state.plan
        self._segments.work_on(index)
        for stripe in plan.missing_in(index):
            if plan.claimed >> stripe & 1:
                continue
            plan.started(stripe, trio.current_time())
            try:
                data = await self._stripes.read(stripe)
            except BaseException:
                plan.failed(stripe, trio.current_time(), 0)
                raise
            self._stripes.take(stripe, data)
        end = min((index + 1) * SEGMENT, state.layout.size)
        with trio.move_on_after(WAIT_FOR_LAN):
            while state.partial.frontier < end:
                changed = state.changed
                if plan.missing_in(index):
                    return
                await changed.wait()

    async def _stream(self, stop: int) -> None:
        """Append [frontier, stop) from the origin; publish each segment that becomes whole."""
        state, partial = self._state, self._state.partial
        until = None if stop == state.layout.size else stop
        async with state.site.wan.origin_stream(
            state.repository, state.digest, partial.frontier, until, lambda: state.bytes_came(0)
        ) as stream:
            if stream.size != state.layout.size:
                raise WrongContent(f"the origin says {stream.size} bytes for {state.digest}")
            state.bytes_came(0)
            skip = partial.frontier - stream.start
            with self._claiming() as claim:
                async for chunk in stream.chunks:
                    state.bytes_came(len(chunk))
                    state.wan_bytes += len(chunk)
                    state.site.metrics.wan_bytes.labels("origin").inc(len(chunk))
                    fresh = chunk[skip:][: stop - partial.frontier]
                    skip = max(0, skip - len(chunk))
                    if fresh:
                        before = partial.frontier
                        await partial.append(bytes(fresh))
                        claim()
                        self._publish(before, partial.frontier)
                    if partial.frontier >= stop and stream.stop > stop:
                        return
        if partial.frontier < stop:
            raise Unavailable(f"the origin ended {state.digest} at byte {partial.frontier} of {stop}")

    @contextmanager
    def _claiming(self) -> Iterator[Callable[[], None]]:
        """Claim the stripe at the frontier, and the next one whenever that has moved on.

        The site then sees that the blob is on its way, long before a first segment is whole.
        """
        state, plan, layout = self._state, self._state.plan, self._state.layout
        current: int | None = None

        def claim() -> None:
            nonlocal current
            now = trio.current_time()
            at = min(state.partial.frontier, layout.size - 1) // layout.piece_length
            if at == current:
                return
            if current is not None:
                for stripe in range(current, at):
                    plan.received(stripe, now)
            current = at
            plan.started(at, now)
            state.poke()

        claim()
        try:
            yield claim
        finally:
            if current is not None and current in plan.in_flight:
                plan.failed(current, trio.current_time(), 0)

    def _publish(self, before: int, after: int) -> None:
        """Say what became whole: pieces to the plan, segments to the site."""
        state = self._state
        now = trio.current_time()
        for index in range(before // SEGMENT, -(-after // SEGMENT)):
            meta = state.partial.segment_meta(index)
            if meta is not None and index not in self._metadata.known:
                for stripe in state.layout.stripes_of(index):
                    state.plan.gained(stripe, now)
                self._metadata.learn(meta, announce=True)
                self._segments.work_on(index)
        state.grew()
        state.poke()
