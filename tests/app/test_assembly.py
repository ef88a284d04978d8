"""How the blob's file on a node grows while its segments come."""

from __future__ import annotations

import random
from pathlib import Path

import trio
from trio.testing import MockClock

from p2pd.app.assembly import DRIP
from p2pd.decide.bits import mask_of
from p2pd.model.layout import MIB, SEGMENT
from tests.support.memory_site import REPOSITORY, open_site

BODY = random.Random(3).randbytes(SEGMENT)


async def test_pieces_are_delivered_while_their_segment_comes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Else the end of each segment, and of the blob, would be a burst of work."""
    lags: list[int] = []
    async with open_site(tmp_path, swarm=True) as site:
        node = site.join(1)
        digest = site.seeder.put(BODY)
        site.seeder.bytes_s = 2 * MIB
        transfer = await node.transfers.obtain(REPOSITORY, digest, len(BODY))
        await trio.sleep(4)  # the first stripes come side by side, and are whole at about the same time
        while not transfer.ended.is_set():
            lags.append(site.seeder.given[digest] - transfer.partial.frontier)
            await trio.sleep(0.1)
        assert node.store.blobs[digest] == BODY
    in_flight, waiting = 3 * MIB, 2 * MIB * DRIP
    assert 0 < max(lags) <= in_flight + waiting


async def test_the_last_piece_ends_it_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """No timer's end, and no other news, is waited for."""
    async with open_site(tmp_path, swarm=True) as site:
        node, holder = site.join(1, seeder=False), site.join(2)
        await site.met()
        digest = site.origin.put(BODY)
        await holder.store.write(digest, BODY)
        assert node.engine.lan is not None
        node.engine.lan.bytes_s = 3.1 * MIB
        transfer = await node.transfers.obtain(REPOSITORY, digest, len(BODY))
        everything = mask_of(range(transfer.layout.stripe_count))
        while transfer.plan.have != everything:  # noqa: ASYNC110 - virtual time
            await trio.sleep(0.01)
        whole_at = trio.current_time()
        await transfer.ended.wait()
        assert trio.current_time() <= whole_at + 0.1
