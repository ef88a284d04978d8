"""Who is pulled when, in virtual time."""

from __future__ import annotations

from itertools import count, pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pd.model.layout import SEGMENT, SMALL_BLOB
from p2pd.model.reference import Repository
from seeder.turns import ABREAST, IDLE, LEAD, TURN, Turns

APP, OTHER = Repository("reg.test", "app"), Repository("reg.test", "other")
BLOCK = SEGMENT // 4
PAUSE = IDLE / 2


class Site:
    """Pulls that append a block each `PAUSE` seconds, and what they did: (name, seconds) for each block."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.turns = Turns()
        self.blocks: list[tuple[str, float]] = []
        self._nursery = nursery

    def pull(self, name: str, size: int, repository: Repository = APP, stalls_after: int = 1 << 60) -> None:
        """Begin to pull; it stands still for 20 idle times once it has `stalls_after` bytes."""
        self._nursery.start_soon(self._pull, name, size, repository, stalls_after)

    async def _pull(self, name: str, size: int, repository: Repository, stalls_after: int) -> None:
        with self.turns.enter(repository, size) as turn:
            for frontier in range(0, size, BLOCK):
                await turn.wait(frontier)
                self.blocks.append((name, trio.current_time()))
                await trio.sleep(20 * IDLE if frontier == stalls_after else PAUSE)

    def began(self, name: str) -> float:
        return min(at for who, at in self.blocks if who == name)


async def test_a_few_are_pulled_abreast_in_the_order_of_asking(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        site = Site(nursery)
        for name in "abcde":
            site.pull(name, SEGMENT)
            await wait_all_tasks_blocked()
    waves = [sorted(name for name in "abcde" if site.began(name) // (4 * PAUSE) == wave) for wave in range(3)]
    assert [len(wave) for wave in waves] == [ABREAST, ABREAST, 1]
    assert "".join(name for wave in waves for name in wave) == "abcde"


@pytest.mark.parametrize("size", [SEGMENT // 2, SEGMENT, 3 * SEGMENT])
async def test_the_second_begins_when_half_of_the_first_ones_turn_is_over(
    autojump_clock: MockClock, size: int
) -> None:
    """Two side by side would both come to the end of their segments last of all."""
    async with trio.open_nursery() as nursery:
        site = Site(nursery)
        for name in "ab":
            site.pull(name, size)
            await wait_all_tasks_blocked()
    half = min(size, TURN) // 2 // BLOCK * PAUSE
    assert site.began("b") - site.began("a") == pytest.approx(half)
    times = [at for who, at in site.blocks if who == "a"]
    assert max(later - at for at, later in pairwise(times)) == pytest.approx(PAUSE), (
        "the other is half way then"
    )


@pytest.mark.parametrize(("step", "seconds"), [(64 * 1024, LEAD), (4 * 1024, 2.0)])
async def test_a_slow_one_leads_for_some_seconds_only(
    autojump_clock: MockClock, step: int, seconds: float
) -> None:
    """One that drips for fewer still: alone it gets no more."""
    async with trio.open_nursery() as nursery:
        site = Site(nursery)
        turns = site.turns
        nursery.start_soon(_hold, turns, step)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        with turns.enter(APP, SEGMENT) as turn:
            await turn.wait(0)
            assert seconds - PAUSE <= trio.current_time() - began <= seconds + IDLE
            await trio.sleep(4 * IDLE)
            began = trio.current_time()
            await turn.wait(512)
            assert trio.current_time() == began, "it does not take the lead again"
        nursery.cancel_scope.cancel()


async def test_repositories_and_small_blobs_do_not_wait(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        site = Site(nursery)
        began = trio.current_time()
        for name in "abc":
            site.pull(name, 2 * SEGMENT)
            await wait_all_tasks_blocked()
        site.pull("other", SEGMENT, OTHER)
        site.pull("small", SMALL_BLOB)
    assert site.began("other") == site.began("small") == began
    assert site.began("c") > began


async def test_a_large_blob_lets_the_others_by_at_the_end_of_its_turn(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        site = Site(nursery)
        for name in "abc":
            site.pull(name, 2 * TURN)
            await wait_all_tasks_blocked()
    turn_seconds = TURN // BLOCK * PAUSE
    assert site.began("c") - site.began("a") <= turn_seconds
    assert len(site.blocks) == 3 * 2 * TURN // BLOCK
    for name in "abc":
        times = [at for who, at in site.blocks if who == name]
        assert max(later - at for at, later in pairwise(times)) <= turn_seconds + PAUSE


async def test_one_to_which_nothing_comes_holds_up_nobody(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        site = Site(nursery)
        for name in "ab":
            site.pull(name, SEGMENT, stalls_after=0)
        await wait_all_tasks_blocked()
        site.pull("c", SEGMENT)
    assert IDLE <= site.began("c") - site.began("a") <= 2 * (2 * IDLE) + PAUSE, "one after the other"


async def test_one_that_gives_up_makes_room(autojump_clock: MockClock) -> None:
    turns = Turns()
    async with trio.open_nursery() as nursery:
        for _ in range(ABREAST):
            nursery.start_soon(_hold, turns, 0)
        await wait_all_tasks_blocked()
        with turns.enter(APP, SEGMENT) as turn:
            began = trio.current_time()
            nursery.cancel_scope.deadline = began + PAUSE
            with trio.CancelScope(shield=True):
                await turn.wait(0)
            assert trio.current_time() - began == pytest.approx(PAUSE)


async def _hold(turns: Turns, step: int) -> None:
    with turns.enter(APP, SEGMENT) as turn:
        for frontier in count(step=step):
            await turn.wait(frontier)
            await trio.sleep(PAUSE / 2)
