"""How a stream is read from a link by few reads that do not hold it up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from p2pd.app.gather import Gather

KIB = 1024
MOST = 64 * KIB
"""What the kernel takes for who does not read, and what one read returns."""


async def read_all(size: int, rate: Callable[[float], float], most: int = MOST) -> int:
    """Read a stream that comes at `rate(seconds)` bytes/s while there is room; how often it was read."""
    gather = Gather(trio.current_time())
    came = buffered = 0.0
    at, reads = trio.current_time(), 0

    def fill() -> None:
        nonlocal at, came, buffered
        now = trio.current_time()
        while at < now - 1e-9:
            step = min(0.001, now - at)
            fresh = min(rate(at) * step, MOST - buffered, size - came)
            at, came, buffered = at + step, came + fresh, buffered + fresh

    got = 0.0
    while got < size - 0.5:
        fill()
        while buffered < min(1448, size - came, size - got - 0.5):
            await trio.sleep(0.003)
            fill()
        count = min(buffered, most)
        buffered, got, reads = buffered - count, got + count, reads + 1
        await gather.before_next(int(count), int(size - got))
    return reads


@pytest.mark.parametrize("kib_s", [2, 16, 64, 256, 2048])
async def test_few_reads_and_no_time_lost(autojump_clock: MockClock, kib_s: int) -> None:
    began = trio.current_time()
    reads = await read_all(1024 * KIB, lambda _: kib_s * KIB)
    seconds = trio.current_time() - began
    assert seconds <= 1.03 * 1024 / kib_s + 0.1
    assert reads <= 10 * seconds + 40


async def test_a_link_that_is_quicker_all_at_once_is_not_held_back(autojump_clock: MockClock) -> None:
    """As when all streams beside it end."""
    began = trio.current_time()
    await read_all(1024 * KIB, lambda at: (128 if at - began < 4 else 2048) * KIB)
    assert trio.current_time() - began < 4.45


async def test_small_reads_of_tls_are_not_taken_for_all_that_came(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    await read_all(1024 * KIB, lambda _: 2048 * KIB, most=16 * KIB)
    assert trio.current_time() - began < 0.65
