"""What node and seeder share of blobs that go to a client without being kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import trio

from p2pd.model.errors import StoreError, WrongContent
from p2pd.model.reference import Digest
from p2pd.ports.store import Hasher, Partial

__all__ = ["Following", "Rest", "checked"]

Rest = Callable[[int, int, int, StoreError], AsyncGenerator[bytes, None]]
"""`rest(start, position, stop, error)`: the bytes [position, stop) of a reader that began at `start`.

Raises the error, with which the assembly ended, where they could not be checked.
"""


async def checked(
    source: AsyncGenerator[bytes, None], digest: Digest, hasher: Hasher, wrong: Callable[[], WrongContent]
) -> AsyncGenerator[bytes, None]:
    """A blob's bytes to its end, the last ones only if all are right; `hasher` has hashed what went before.

    Raises what `wrong` makes where the blob is not `digest`.
    """
    kept = b""
    async with aclosing(source) as chunks:
        async for chunk in chunks:
            await trio.to_thread.run_sync(hasher.update, chunk)
            if kept:
                yield kept
            kept = chunk
    if hasher.hexdigest() != digest.hex:
        raise wrong()
    yield kept


class Following:
    """What a blob in assembly gives, and where it ends because of the disk, the rest all the same."""

    def __init__(self, partial: Partial, rest: Rest) -> None:
        self._partial, self._rest = partial, rest

    @property
    def size(self) -> int:
        return self._partial.size

    async def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        position = start
        try:
            async with aclosing(self._partial.chunks(start, stop)) as chunks:
                async for chunk in chunks:
                    position += len(chunk)
                    yield chunk
        except StoreError as error:
            rest = self._rest(start, position, stop, error)
        else:
            return
        async with aclosing(rest) as chunks:
            async for chunk in chunks:
                yield chunk
