"""Upstream's word on something that changes, or the memory of it where nobody upstream can be asked."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
import trio
from prometheus_client import Counter

from p2pd.model.errors import Denied, NotFound, P2pdError

__all__ = ["CONFIRM_WITHIN", "TOLD_FOR", "Fallback", "Remembered", "plausible"]

log = structlog.get_logger()

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

CONFIRM_WITHIN = 6.0
"""Seconds until memory, where there is one, answers instead: the front end gives up after 9, and the
manifest has to be found in them too."""

HURRIED_FOR = 5.0
CONFIRM_HURRIED = 1.0
"""An answer from memory leaves its registry no longer than this for the next ones, for `HURRIED_FOR` s.

Then one of them gives it all the time again: a WAN that needs longer would else never be heard any more.
"""

TOLD_FOR = 60.0
"""Seconds in which the staleness of one answer is logged once."""


@dataclass(frozen=True, slots=True)
class Remembered(Generic[T]):
    """What upstream said, and when (seconds since the epoch)."""

    value: T
    confirmed_at: float


_SKEW = 60.0


def plausible(confirmed_at: float) -> float:
    """When an answer was confirmed, or the epoch where that is still to come.

    Then the clock was put back since, and how old the answer is nobody knows: taken for new, it would mask
    every other one's for years.
    """
    return confirmed_at if confirmed_at <= time.time() + _SKEW else 0.0


class Fallback(Generic[K, T]):
    """`event` is logged for what is stale, which is named by its field `field` and counted by `stale`."""

    def __init__(self, event: str, field: str, stale: Counter) -> None:
        self._event, self._field, self._stale = event, field, stale
        self._trial_at: dict[str, float] = {}
        self._told: dict[K, float] = {}

    async def ask(
        self,
        registry: str,
        key: K,
        name: str,
        confirm: Callable[[], Awaitable[T]],
        recall: Callable[[Sequence[P2pdError]], Awaitable[Remembered[T] | None]],
    ) -> tuple[T, bool]:
        """What `confirm` says, or, stale, what `recall` finds when that fails or takes too long.

        "Not found" and "denied" are answers: no memory masks them. `recall` is told why `confirm` failed,
        if it did. Raises P2pdError.
        """
        confirmed: list[T] = []
        faults: list[P2pdError] = []
        done = trio.Event()

        async def run() -> None:
            try:
                confirmed.append(await confirm())
            except P2pdError as error:
                faults.append(error)
            done.set()

        record = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            hurried = self._is_hurried(registry)
            with trio.move_on_after(CONFIRM_HURRIED if hurried else CONFIRM_WITHIN):
                await done.wait()
            if not confirmed and not any(isinstance(fault, NotFound | Denied) for fault in faults):
                record = await recall(faults)
            if record is None:
                await done.wait()
            nursery.cancel_scope.cancel()
        if confirmed:
            self._trial_at.pop(registry, None)
            return confirmed[0], False
        if record is None or (faults and isinstance(faults[0], NotFound | Denied)):
            raise faults[0]
        if not hurried:
            self._trial_at[registry] = trio.current_time() + HURRIED_FOR
        self._tell(key, name, record, faults)
        return record.value, True

    def _is_hurried(self, registry: str) -> bool:
        """Whether memory answered for it of late. Who asks next after that tries alone: the others go on."""
        now, trial_at = trio.current_time(), self._trial_at.get(registry)
        if trial_at is None or now < trial_at:
            return trial_at is not None
        self._trial_at[registry] = now + CONFIRM_WITHIN + HURRIED_FOR
        return False

    def _tell(self, key: K, name: str, record: Remembered[T], faults: Sequence[P2pdError]) -> None:
        self._stale.inc()
        age = round(time.time() - record.confirmed_at)
        reason = str(faults[0]) if faults else "the WAN gave no answer in time"
        level = log.warning if self._is_news(key) else log.debug
        level(self._event, **{self._field: name}, age_s=age, reason=reason)

    def _is_news(self, key: K) -> bool:
        """Whether nobody was told of late that this is stale: one pull asks for it several times."""
        now = trio.current_time()
        self._told = {known: at for known, at in self._told.items() if now - at < TOLD_FOR}
        if key in self._told:
            return False
        self._told[key] = now
        return True
