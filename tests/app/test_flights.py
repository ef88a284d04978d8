"""Single flight: one call a key, whatever becomes of its callers."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pd.app.flights import Flights
from p2pd.model.errors import NotFound, RateLimited


class Call:
    def __init__(self, seconds: float = 1.0, error: Exception | None = None) -> None:
        self.seconds, self.error, self.made = seconds, error, 0

    async def __call__(self) -> int:
        self.made += 1
        made = self.made
        await trio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return made


async def test_many_callers_one_call(autojump_clock: MockClock) -> None:
    flights, call, results = Flights[str, int](), Call(), []

    async def ask() -> None:
        results.append(await flights.join("k", call))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert results == [1] * 20
    assert trio.current_time() == pytest.approx(1.0)
    assert await flights.join("k", call) == 2, "a landed flight is not a cache"


async def test_keys_do_not_wait_for_each_other(autojump_clock: MockClock) -> None:
    flights = Flights[int, int]()
    async with trio.open_nursery() as nursery:
        for key in range(5):
            nursery.start_soon(flights.join, key, Call())
    assert trio.current_time() == pytest.approx(1.0)


async def test_everyone_gets_the_error_each_its_own(autojump_clock: MockClock) -> None:
    flights, call, errors = Flights[str, int](), Call(error=RateLimited("slow", 7.0)), []

    async def ask() -> None:
        try:
            await flights.join("k", call)
        except RateLimited as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert call.made == 1
    assert [str(error) for error in errors] == ["slow"] * 3
    assert [error.retry_after for error in errors] == [7.0] * 3
    assert len({id(error) for error in errors}) == 3


async def test_the_next_takes_over_from_a_caller_that_leaves(autojump_clock: MockClock) -> None:
    flights, call, results = Flights[str, int](), Call(), []

    async def leave() -> None:
        with trio.move_on_after(0.5):
            await flights.join("k", call)

    async def ask() -> None:
        results.append(await flights.join("k", call))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(ask)
    assert call.made == 2
    assert results == [2, 2, 2]
    assert trio.current_time() == pytest.approx(1.5)


async def test_a_waiting_caller_may_leave(autojump_clock: MockClock) -> None:
    flights, call = Flights[str, int](), Call()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flights.join, "k", call)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.2) as scope:
            await flights.join("k", call)
        assert scope.cancelled_caught
    assert call.made == 1


async def test_a_bug_in_a_call_is_its_callers_own(autojump_clock: MockClock) -> None:
    flights = Flights[str, int]()
    with pytest.raises(ZeroDivisionError):
        await flights.join("k", Call(error=ZeroDivisionError()))
    with pytest.raises(NotFound):
        await flights.join("k", Call(error=NotFound("x")))
    assert await flights.join("k", Call()) == 1
