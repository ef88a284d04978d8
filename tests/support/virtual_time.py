"""Virtual time for what runs on real sockets, files and threads: time passes only while nothing works.

trio's own autojump clock knows tasks alone: it would jump over a deadline while a thread still writes.
Here a jump is made only when no task can run, no thread works for a task, and no other thread of the
process (libtorrent's) is running or waits for a disk. A deadline then tells of a wait that nothing would
have ended, however slow or busy the machine is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import trio
import trio.testing

__all__ = ["run"]

_IDLE = 0.005
"""Seconds of real time in which nothing may happen before time passes: the kernel's way over loopback."""

_TASKS = Path("/proc/self/task")


def run(
    main: Callable[[], Awaitable[None]],
    *,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> None:
    """As `trio.run`; it runs the tests marked `virtual_time`."""
    ours = trio.testing.MockClock()

    async def start() -> Any:
        trio.lowlevel.spawn_system_task(_jump_when_idle, ours)
        await main()

    trio.run(start, clock=ours if clock is None else clock, instruments=instruments)


async def _jump_when_idle(clock: trio.testing.MockClock) -> None:
    limiter = trio.to_thread.current_default_thread_limiter()
    while True:
        await trio.testing.wait_all_tasks_blocked(_IDLE)
        ahead = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if 0 < ahead < float("inf") and not limiter.borrowed_tokens and not _has_busy_thread():
            clock.jump(ahead)


def _has_busy_thread() -> bool:
    me = threading.get_native_id()
    return any(_state(int(name)) in "RD" for name in os.listdir(_TASKS) if int(name) != me)


def _state(thread: int) -> str:
    try:
        stat = (_TASKS / str(thread) / "stat").read_text()
    except OSError:
        return "X"  # it has ended
    return stat.rpartition(")")[2].split()[0]
