"""The msgpack array in a frame of the control protocol, read field by field within limits.

Nothing else than PeerProtocolError is raised here, and no array makes more than a few times its own size
in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import msgpack  # type: ignore[import-untyped]  # ships no types

from p2pd.model.errors import PeerProtocolError
from p2pd.model.messages import READ_LIMIT
from p2pd.model.reference import Digest

__all__ = ["INT_LIMIT", "Fields", "digest_of", "unpack"]

_T = TypeVar("_T")

INT_LIMIT = 2**53
"""Integers are below it: exact in every language's numbers."""

_STRING_LIMIT = 1024
_ARRAY_LIMIT = 64
_ARRAYS_LIMIT = 16


class Fields:
    """The fields of one array, taken in order, each checked for type and range."""

    def __init__(self, items: list[Any]) -> None:
        self._items = iter(items)

    def _next(self) -> Any:
        try:
            return next(self._items)
        except StopIteration:
            raise PeerProtocolError("message has too few fields") from None

    def _take(self, what: type) -> Any:
        value = self._next()
        # Exact types: bool is an int to isinstance.
        if type(value) is not what:
            raise PeerProtocolError(f"field is {type(value).__name__} where {what.__name__} belongs")
        return value

    def integer(self, low: int = 0, high: int = INT_LIMIT - 1) -> int:
        value: int = self._take(int)
        if not low <= value <= high:
            raise PeerProtocolError(f"number is not within {low} to {high}")
        return value

    def boolean(self) -> bool:
        value: bool = self._take(bool)
        return value

    def later_boolean(self) -> bool:
        """A field that older nodes do not send; false then."""
        value = next(self._items, False)
        if type(value) is not bool:
            raise PeerProtocolError(f"field is {type(value).__name__} where bool belongs")
        return value

    def later_binary(self, limit: int) -> bytes:
        """A field that older nodes do not send; empty then."""
        value = next(self._items, b"")
        return Fields([value]).binary(limit)

    def seconds(self) -> float:
        value: float = self._take(float)
        if not 0.0 <= value < math.inf:
            raise PeerProtocolError("time is not a finite number of seconds >= 0")
        return value

    def text(self) -> str:
        value: str = self._take(str)
        return value

    def binary(self, limit: int) -> bytes:
        value: bytes = self._take(bytes)
        if len(value) > limit:
            raise PeerProtocolError(f"{len(value)} bytes are over the limit of {limit}")
        return value

    def optional(self, take: Callable[[Fields], _T]) -> _T | None:
        """None, or what `take` makes of one element."""
        value = self._next()
        return None if value is None else take(Fields([value]))

    def array(self) -> list[Any]:
        value: list[Any] = self._take(list)
        return value

    def nested(self) -> Fields:
        return Fields(self.array())

    def digest(self) -> Digest:
        raw = self.binary(32)
        if len(raw) != 32:
            raise PeerProtocolError(f"digest has {len(raw)} bytes, not 32")
        return digest_of(raw)


def unpack(frame: bytes) -> list[Any]:
    """The elements of the array that `frame` is. Raises PeerProtocolError."""
    arrays = 0

    def count_array(items: list[Any]) -> list[Any]:
        # Bounds what an array of arrays costs: msgpack itself limits only the length of each.
        nonlocal arrays
        arrays += 1
        if arrays > _ARRAYS_LIMIT:
            raise PeerProtocolError(f"frame has more than {_ARRAYS_LIMIT} arrays")
        return items

    try:
        items = msgpack.unpackb(
            frame,
            raw=False,
            strict_map_key=True,
            list_hook=count_array,
            max_str_len=_STRING_LIMIT,
            max_bin_len=READ_LIMIT,
            max_array_len=_ARRAY_LIMIT,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise PeerProtocolError(f"frame is not msgpack within limits: {type(error).__name__}") from error
    if not isinstance(items, list):
        raise PeerProtocolError("frame is not an array")
    return items


@lru_cache(maxsize=256)
def digest_of(raw: bytes) -> Digest:
    """The digest of these 32 bytes."""
    # Kept: those under way come again each second from everybody.
    return Digest(raw.hex())
