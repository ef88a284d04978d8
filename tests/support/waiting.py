"""Waiting for a condition that sets no event, instead of sleeping."""

from __future__ import annotations

from collections.abc import Callable

import trio

__all__ = ["until"]


async def until(condition: Callable[[], object], within: float = 20.0) -> None:
    """Return once `condition()` is true; raises trio.TooSlowError after `within` seconds."""
    pause = 0.005
    with trio.fail_after(within):
        while not condition():
            await trio.sleep(pause)
            pause = min(1.5 * pause, 0.05)
