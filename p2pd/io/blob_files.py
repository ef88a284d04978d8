"""The files of one blob in the store: written whole or not at all, deleted.

All but `write_whole` block; they raise OSError, which the store maps.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from pathlib import Path

import trio

from p2pd.io.files import Files, disk_errors, ensure_dir, replace_file
from p2pd.io.pieces import PieceHasher, PieceTable
from p2pd.io.places import Places
from p2pd.io.room import Room
from p2pd.io.segment_files import remove_blob
from p2pd.model.layout import SMALL_BLOB
from p2pd.model.reference import Digest

__all__ = ["delete_blob", "keep_blob", "keep_table", "write_whole"]


def keep_blob(places: Places, files: Files, digest: Digest, body: bytes) -> bool:
    """Check and keep a blob that is in memory; False where it is not `digest`."""
    if hashlib.sha256(body).hexdigest() != digest.hex:
        return False
    ensure_dir(files, places.blob(digest).parent)
    if len(body) > SMALL_BLOB:
        hasher = PieceHasher(len(body))
        hasher.update(body)
        keep_table(places, files, digest, hasher.table())
    replace_file(files, places.new_scratch(), places.blob(digest), body)
    return True


def keep_table(places: Places, files: Files, digest: Digest, table: PieceTable) -> None:
    replace_file(files, places.new_scratch(), places.sidecar(digest), table.encode())


def delete_blob(places: Places, files: Files, digest: Digest) -> None:
    remove_blob(files, places.blob(digest), places.new_scratch())
    files.unlink(places.sidecar(digest))


async def write_whole(
    doing: str, chunks: AsyncGenerator[bytes, None], target: Path, scratch: Path, files: Files, room: Room
) -> None:
    """Write `chunks` by way of `scratch`: `target` is whole or not there. Raises StoreError, StoreFull."""
    try:
        file = await room.write(doing, partial(files.create, scratch))
        offset = 0
        async with aclosing(chunks):
            async for data in chunks:
                await room.write(doing, partial(files.write_at, file, data, offset))
                offset += len(data)
        with disk_errors(doing):
            await trio.to_thread.run_sync(files.rename, scratch, target)
    except BaseException:
        with contextlib.suppress(OSError):
            files.unlink(scratch)
        raise
