"""Stripes over the WAN, and where they go."""

from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import MockClock

from p2pd.model.layout import MIB
from tests.support.memory_site import REPOSITORY, open_site

BODY = bytes(3 * MIB)


async def test_the_plan_is_told_when_half_of_a_stripe_came(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        site.seeder.bytes_s = MIB / 10
        transfer = await node.transfers.obtain(REPOSITORY, site.seeder.put(BODY), len(BODY))
        await trio.sleep(0.1)
        stripe, began = min(transfer.plan.in_flight.items())
        half_at: list[float] = []
        half_came = transfer.plan.half_came

        def noted(half: int, now: float) -> None:
            half_came(half, now)
            if half == stripe:
                half_at.append(trio.current_time())

        transfer.plan.half_came = noted  # type: ignore[assignment, method-assign] # it listens
        while stripe in transfer.plan.in_flight:
            await transfer.changed.wait()
        assert len(half_at) == 1
        assert began + 1 < half_at[0] < trio.current_time()


async def test_a_stripe_that_comes_twice_is_not_kept(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        site.seeder.bytes_s = MIB / 100
        transfer = await node.transfers.obtain(REPOSITORY, site.seeder.put(BODY), len(BODY))
        transfer.plan.gained(1, trio.current_time())
        transfer._stripes.take(1, BODY[:MIB])
        assert not transfer._segments._raw
        assert not transfer._segments._given
