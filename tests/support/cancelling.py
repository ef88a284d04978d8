"""Cancelling at every checkpoint in turn: what must be clean after a cancellation is so after each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

__all__ = ["Cut", "at_every_step"]


class Cut(trio.abc.Instrument):
    """Cancels `run` when one of its tasks is about to go on for the `at`-th time."""

    def __init__(self, at: int) -> None:
        self.steps = 0
        self._at = at
        self._scope = trio.CancelScope()
        self._root: trio.lowlevel.Task | None = None

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` in a task of its own."""

        async def root() -> None:
            with self._scope:
                self._root = trio.lowlevel.current_task()
                await work()

        trio.lowlevel.add_instrument(self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(root)
        finally:
            trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._root is None or not self._owns(task):
            return
        self.steps += 1
        if self.steps == self._at:
            self._scope.cancel()

    def _owns(self, task: trio.lowlevel.Task) -> bool:
        each: trio.lowlevel.Task | None = task
        while each is not None and each is not self._root:
            nursery = each.parent_nursery
            each = None if nursery is None else nursery.parent_task
        return each is not None


async def at_every_step(attempt: Callable[[Cut], Awaitable[None]], *, least: int) -> None:
    """Call `attempt` again and again, cut one step later each time, until it ends by itself.

    `attempt` has the cut `run` what is to be cancelled, and checks afterwards. Raises AssertionError where
    it took fewer than `least` steps: then it did not do what it was to be cut in.
    """
    at, ran_out = 0, False
    while not ran_out:
        at += 1
        cut = Cut(at)
        await attempt(cut)
        ran_out = cut.steps < at
    assert at > least, f"only {at - 1} steps were there to be cut"
