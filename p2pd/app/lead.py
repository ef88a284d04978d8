"""The node that plays the seeder where the site has none: it pulls the blob from the origin once.

Segments that some node already has metadata for are completed stripe by stripe (what the site
holds is not fetched again); the rest is one plain stream, hashed on the way, each segment handed
to the site as soon as it is whole. When the leader goes, the next in rank does the same from
where the site stands.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

from p2pd.model.errors import Unavailable, WrongContent
from p2pd.model.layout import SEGMENT
from p2pd.ports.origin import BlobStream

if TYPE_CHECKING:
    from p2pd.app.transfer import Transfer

__all__ = ["lead"]

WAIT_FOR_LAN = 10.0


async def lead(transfer: Transfer) -> None:
    """Bring the whole blob to this node (and so to the site). Raises P2pdError; progress is kept."""
    partial = transfer.partial
    while partial.frontier < transfer.layout.size:
        index = partial.frontier // SEGMENT
        if index in transfer.metas:
            await _complete(transfer, index)
        else:
            async with transfer.writer:
                await _stream(transfer, _next_known(transfer, index))


def _next_known(transfer: Transfer, index: int) -> int:
    """Where the next segment begins whose metadata is known, or the end of the blob."""
    known = [other * SEGMENT for other in transfer.metas if other > index]
    return min([*known, transfer.layout.size])


async def _complete(transfer: Transfer, index: int) -> None:
    """Fetch the stripes of a segment that nobody on the site has; wait for the rest over the LAN."""
    transfer.work_on(index)
    for stripe in transfer.plan.missing_in(index):
        if transfer.plan.claimed >> stripe & 1:
            continue
        transfer.plan.started(stripe, trio.current_time())
        try:
            data = await transfer.read_stripe(stripe)
        except BaseException:
            transfer.plan.failed(stripe, trio.current_time(), 0)
            raise
        transfer.take_stripe(stripe, data)
    end = min((index + 1) * SEGMENT, transfer.layout.size)
    with trio.move_on_after(WAIT_FOR_LAN):
        while transfer.partial.frontier < end:
            changed = transfer.changed
            if transfer.plan.missing_in(index):
                return
            await changed.wait()


async def _stream(transfer: Transfer, stop: int) -> None:
    """Append [frontier, stop) from the origin; publish each segment that becomes whole."""
    partial = transfer.partial
    async with _opened(transfer, partial.frontier, stop) as stream:
        if stream.size != transfer.layout.size:
            raise WrongContent(f"the origin says {stream.size} bytes for {transfer.digest}")
        transfer.bytes_came(0)
        skip = partial.frontier - stream.start
        with _claiming(transfer) as claim:
            async for chunk in stream.chunks:
                transfer.bytes_came(len(chunk))
                transfer.wan_bytes += len(chunk)
                transfer.site.metrics.wan_bytes.labels("origin").inc(len(chunk))
                fresh = chunk[skip:][: stop - partial.frontier]
                skip = max(0, skip - len(chunk))
                if fresh:
                    before = partial.frontier
                    await partial.append(bytes(fresh))
                    claim()
                    _publish(transfer, before, partial.frontier)
                if partial.frontier >= stop:
                    return
    raise Unavailable(f"the origin ended {transfer.digest} at byte {partial.frontier} of {stop}")


@asynccontextmanager
async def _opened(transfer: Transfer, start: int, stop: int) -> AsyncIterator[BlobStream]:
    until = None if stop == transfer.layout.size else stop
    async with transfer.site.wan.origin_stream(
        transfer.repository, transfer.digest, start, until, lambda: transfer.bytes_came(0)
    ) as stream:
        yield stream


@contextmanager
def _claiming(transfer: Transfer) -> Iterator[Callable[[], None]]:
    """Claim the stripe at the frontier, and the next one whenever that has moved on.

    The site then sees that the blob is on its way, long before a first segment is whole.
    """
    plan, length = transfer.plan, transfer.layout.piece_length
    current: int | None = None

    def claim() -> None:
        nonlocal current
        now, at = trio.current_time(), min(transfer.partial.frontier, transfer.layout.size - 1) // length
        if at == current:
            return
        if current is not None:
            for stripe in range(current, at):
                plan.received(stripe, now)
        current = at
        plan.started(at, now)
        transfer.poke()

    claim()
    try:
        yield claim
    finally:
        if current is not None and current in plan.in_flight:
            plan.failed(current, trio.current_time(), 0)


def _publish(transfer: Transfer, before: int, after: int) -> None:
    """Say what became whole: pieces to the plan, segments to the site."""
    partial = transfer.partial
    now = trio.current_time()
    for index in range(before // SEGMENT, -(-after // SEGMENT)):
        meta = partial.segment_meta(index)
        if meta is not None and index not in transfer.metas:
            for stripe in transfer.layout.stripes_of(index):
                transfer.plan.gained(stripe, now)
            transfer.learn_meta(meta, announce=True)
            transfer.work_on(index)
    transfer.poke()
