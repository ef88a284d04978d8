"""Reading a held blob, every byte checked before it leaves."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

import structlog
import trio

from p2pd.io.files import Descriptor, disk_errors, read_sound
from p2pd.io.pieces import PieceHasher, PieceTable
from p2pd.model.errors import StoreError
from p2pd.model.layout import Layout
from p2pd.model.reference import Digest

__all__ = ["FileHeldBlob", "hash_file", "read_whole"]

_PIECES_A_HOP = 16

log = structlog.get_logger()


class FileHeldBlob:
    """`p2pd.ports.store.HeldBlob` on its file, or files. They can be read as long as this object lives.

    `table` is None for a small blob: that is read whole and checked by its sha256.
    """

    def __init__(
        self,
        digest: Digest,
        size: int,
        file: Descriptor,
        table: PieceTable | None,
        on_corrupt: Callable[[Digest], Awaitable[None]],
    ) -> None:
        self._digest, self._size = digest, size
        self._file, self._table = file, table
        self._layout = Layout(size)
        self._on_corrupt = on_corrupt

    @property
    def digest(self) -> Digest:
        return self._digest

    @property
    def size(self) -> int:
        return self._size

    async def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        stop = min(stop, self._size)
        if start >= stop:
            return
        if self._table is None:
            body = await self._checked(partial(read_whole, self._file, self._digest, self._size))
            yield body[start:stop]
            return
        length = self._layout.piece_length
        table = self._table
        for number in range(start // length, -(-stop // length)):
            piece = await self._checked(partial(self.piece, table, number))
            low = max(start - number * length, 0)
            yield piece[low : stop - number * length] if low or stop < number * length + len(piece) else piece

    def piece(self, table: PieceTable, number: int) -> bytes | None:
        """Read and check one piece; None when it is not what was stored. Blocks."""
        stripe = self._layout.stripe(number)
        data = read_sound(self._file, stripe.start, stripe.stop - stripe.start)
        return data if table.matches(number, data) else None

    async def _checked(self, read: Callable[[], bytes | None]) -> bytes:
        with disk_errors(f"read {self._digest}"):
            data = await trio.to_thread.run_sync(read)
        if data is not None:
            return data
        log.error("blob.lost", digest=str(self._digest), bytes=self._size, reason="corrupt")
        await self._on_corrupt(self._digest)
        raise StoreError(f"{self._digest}: the stored bytes are corrupt and were dropped; pull it again")


def read_whole(file: Descriptor, digest: Digest, size: int) -> bytes | None:
    """A small blob, or None when its sha256 is wrong. Blocks."""
    body = read_sound(file, 0, size)
    return body if hashlib.sha256(body).hexdigest() == digest.hex else None


async def hash_file(file: Descriptor, digest: Digest, size: int) -> PieceTable | None:
    """Make the piece table of a blob from its bytes; None when its sha256 is wrong."""
    hasher = PieceHasher(size)

    def hash_some() -> bool:
        for _ in range(_PIECES_A_HOP):
            data = read_sound(file, hasher.position, hasher.piece_left)
            if not data:
                return False
            hasher.update(data)
        return True

    if file.length() != size:
        return None
    while await trio.to_thread.run_sync(hash_some):
        pass
    return hasher.table() if hasher.position == size and hasher.sha256 == digest.hex else None
