"""Single flight: many callers of one key share one call, which dies with its last caller only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

from p2pd.model.errors import P2pdError, fresh

__all__ = ["Flights"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.landed = trio.Event()
        self.result: T | None = None
        self.error: P2pdError | None = None
        self.cancelled = False


class Flights(Generic[K, T]):
    """The first caller of a key makes the call; the others wait for its result.

    When the first caller is cancelled, one of those that wait takes over with its own call.
    """

    def __init__(self) -> None:
        self._flying: dict[K, _Flight[T]] = {}

    async def join(self, key: K, call: Callable[[], Awaitable[T]]) -> T:
        """The result of `call` or of the one already under way; its P2pdError likewise."""
        while (flight := self._flying.get(key)) is not None:
            await flight.landed.wait()
            if flight.cancelled:
                continue
            if flight.error is not None:
                raise fresh(flight.error)
            return flight.result  # type: ignore[return-value]  # landed without error: it has a result
        return await self._fly(key, call)

    async def _fly(self, key: K, call: Callable[[], Awaitable[T]]) -> T:
        flight = self._flying[key] = _Flight[T]()
        try:
            flight.result = await call()
        except P2pdError as error:
            flight.error = error
            raise
        except BaseException:
            flight.cancelled = True
            raise
        finally:
            del self._flying[key]
            flight.landed.set()
        return flight.result
