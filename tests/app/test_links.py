"""Shares of a limited link, and who yields to whom."""

from __future__ import annotations

import itertools
from pathlib import Path

import trio
from trio.testing import MockClock

from p2pd.app.links import ASK_EVERY, Links, WanMeter
from p2pd.app.metrics import Metrics
from p2pd.app.transfer import STALL
from p2pd.app.wan import Reader, Wan
from p2pd.decide.plan import Way
from p2pd.model.layout import MIB
from p2pd.model.rate import UNLIMITED, LinkUse, Rate, RatePlan, RateWindow
from tests.support.memory_origin import MemoryOrigin
from tests.support.memory_site import REPOSITORY, open_site

BODY = bytes(range(256)) * 4096 * 24  # 24 MiB


async def test_a_meter_holds_its_users_to_the_rate(autojump_clock: MockClock) -> None:
    meter = WanMeter(lambda: 1000.0)

    async def use() -> None:
        for _ in range(10):
            await meter.passed(500)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(use)
        nursery.start_soon(use)
    assert 9.5 <= trio.current_time() - began <= 10.0


async def test_a_limit_that_is_lifted_ends_the_wait(autojump_clock: MockClock) -> None:
    rate = 1.0
    meter = WanMeter(lambda: rate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter.passed, 10**6)
        await trio.sleep(1)
        rate = UNLIMITED
    assert trio.current_time() < 20


async def test_a_source_that_waits_for_the_rate_is_not_silent(autojump_clock: MockClock) -> None:
    meter = WanMeter(lambda: 1000.0)
    heard: list[float] = []
    await meter.passed(60_000, lambda: heard.append(trio.current_time()))
    gaps = [later - earlier for earlier, later in itertools.pairwise([*heard, trio.current_time()])]
    assert len(gaps) > 10
    assert max(gaps) < STALL / 2


async def test_what_is_small_does_not_wait_behind_what_is_large(autojump_clock: MockClock) -> None:
    """A manifest that came is answered at once; the layers pay for it."""
    source, meter = MemoryOrigin(), WanMeter(lambda: 10_000.0)
    wan = Wan([("seeder", source)], None, Metrics(), meter)
    layer, small = source.put(BODY), source.put(b"small" * 1000)
    async with trio.open_nursery() as nursery:
        reader = Reader(lambda _: None)
        nursery.start_soon(wan.read_range, Way.SEEDER, REPOSITORY, layer, len(BODY), (0, MIB), reader)
        await trio.sleep(1)
        began = trio.current_time()
        assert await wan.small_blob(REPOSITORY, small, MIB) == b"small" * 1000
        assert trio.current_time() - began < 1
        nursery.cancel_scope.cancel()


async def test_a_site_limit_is_shared_by_those_who_use_the_wan(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        first, second, _ = (site.join(number) for number in (1, 2, 3))
        await site.met()
        links = Links(site_wan=RatePlan(Rate(900.0)), minute=lambda: 0)
        links.own = lambda: LinkUse(wan=True)
        second.site.links.own = lambda: LinkUse(wan=True, urgent=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(links.run, first.peers, lambda _: None)
            await trio.sleep(ASK_EVERY / 2)
            assert links.wan_bytes_s == 450.0
            assert links.must_yield
            second.site.links.own = LinkUse
            await trio.sleep(ASK_EVERY)
            assert links.wan_bytes_s == 900.0
            assert not links.must_yield
            nursery.cancel_scope.cancel()


async def test_the_swarm_is_told_when_its_limit_changes(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        now = [0]
        links = Links(lan=RatePlan(Rate(100.0), (RateWindow(60, 120, Rate(7.0)),)), minute=lambda: now[0])
        told: list[float] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(links.run, site.join(1).peers, told.append)
            await trio.sleep(3 * ASK_EVERY)
            now[0] = 60
            await trio.sleep(1.5 * ASK_EVERY)
            nursery.cancel_scope.cancel()
        assert told == [100.0, 7.0]


async def test_what_nobody_waits_for_yields_to_a_neighbour_and_goes_on_later(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site, trio.open_nursery() as nursery:
        node, other = site.join(1), site.join(2)
        await site.met()
        digest = site.seeder.put(BODY)
        site.seeder.bytes_s = 4 * MIB
        links = node.site.links
        links.own, links.has_background = node.transfers.use, lambda: True
        other.site.links.own = lambda: LinkUse(wan=True, urgent=True)
        nursery.start_soon(links.run, node.peers, lambda _: None)
        await trio.sleep(ASK_EVERY / 2)
        transfer = await node.transfers.obtain(REPOSITORY, digest, len(BODY), background=True)
        await trio.sleep(60)
        assert site.seeder.given[digest] == 0
        assert not transfer.ended.is_set()
        other.site.links.own = LinkUse
        with trio.fail_after(10):
            while not site.seeder.given[digest]:  # noqa: ASYNC110 - a memory of bytes has no event
                await trio.sleep(0.1)
        nursery.cancel_scope.cancel()


async def test_a_client_takes_a_transfer_out_of_the_background(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        digest = site.seeder.put(BODY)
        site.seeder.bytes_s = 4 * MIB
        await node.transfers.obtain(REPOSITORY, digest, len(BODY), background=True)
        assert node.transfers.has_background()
        await node.transfers.obtain(REPOSITORY, digest, len(BODY))
        assert not node.transfers.has_background()
        assert node.transfers.use().urgent


async def test_a_client_that_gets_nothing_over_the_wan_makes_nobody_yield(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It may wait for the very blob that a neighbour fetches in the background."""
    async with open_site(tmp_path) as site, trio.open_nursery() as nursery:
        fetching, waiting = site.join(1), site.join(2, seeder=False, origin=False)
        await site.met()
        digest = site.seeder.put(BODY)
        site.seeder.bytes_s = MIB / 100
        for node in (fetching, waiting):
            node.site.links.own = node.transfers.use
            node.site.links.has_background = node.transfers.has_background
            nursery.start_soon(node.site.links.run, node.peers, lambda _: None)
        transfer = await fetching.transfers.obtain(REPOSITORY, digest, len(BODY), background=True)
        nursery.start_soon(waiting.transfers.obtain, REPOSITORY, digest, len(BODY))
        await trio.sleep(3 * ASK_EVERY)
        assert waiting.transfers.running(digest) is not None
        assert transfer.plan.way is Way.SEEDER
        nursery.cancel_scope.cancel()
