"""Reading held blobs again and hashing them whole: does the disk still have what was stored?"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

import structlog
import trio

from p2pd.model.admin import VerifyEvent
from p2pd.model.errors import StoreError
from p2pd.model.reference import Digest
from p2pd.ports.store import Store

__all__ = ["verify"]

log = structlog.get_logger()

TELL_EVERY = 1.0

Tell = Callable[[VerifyEvent], Awaitable[None]]


async def verify(store: Store, digests: Sequence[Digest], tell: Tell) -> None:
    """Check these blobs, or all; a bad one is dropped, to be fetched again when asked for.

    One at a time, a piece at a time: serving goes first. What came or went meanwhile is no fault.
    """
    wanted = list(digests) or sorted(digest for digest, _ in store.held())
    total = sum(store.size_of(digest) or 0 for digest in wanted)
    progress = _Progress(total, tell)
    checked = read = bad = 0
    for digest in wanted:
        size = store.size_of(digest)
        if size is None:
            if digests:
                bad += 1
                await tell(VerifyEvent("missing", str(digest)))
            continue
        good = await _is_good(store, digest, size, progress)
        checked, read = checked + 1, read + size
        bad += not good
        await tell(VerifyEvent("ok" if good else "corrupt", str(digest), size))
    await tell(VerifyEvent("done", size=read, checked=checked, bad=bad))


async def _is_good(store: Store, digest: Digest, size: int, progress: _Progress) -> bool:
    hasher = hashlib.sha256()
    try:
        blob = await store.open(digest, is_use=False)
        if blob is None:
            return False
        async with aclosing(blob.chunks(0, size)) as chunks:
            async for chunk in chunks:
                await trio.to_thread.run_sync(hasher.update, chunk)
                await progress.add(len(chunk))
    except StoreError:
        if store.size_of(digest) is not None:
            raise  # the disk fails, which says nothing about the blob
        return False
    if hasher.hexdigest() == digest.hex:
        return True
    log.error("blob.lost", digest=str(digest), bytes=size, reason="corrupt")
    await store.drop(digest)
    return False


class _Progress:
    def __init__(self, total: int, tell: Tell) -> None:
        self._total, self._tell = total, tell
        self._done, self._told_at = 0, trio.current_time()

    async def add(self, count: int) -> None:
        self._done += count
        if trio.current_time() - self._told_at >= TELL_EVERY:
            self._told_at = trio.current_time()
            await self._tell(VerifyEvent("progress", size=self._total, checked=self._done))
