"""The content store on files: `p2pd.ports.store.Store`.

Rules that hold here:
- A digest is in the index only while its blob, checked and durable, is in its place.
- Every step leaves a directory that the next start reads right, wherever the power fails: bytes
  are synced before the rename that makes them count, and the directory after it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from weakref import WeakSet, WeakValueDictionary

import structlog
import trio

from p2pd.io.answers import FileAnswers
from p2pd.io.blob_files import delete_blob, keep_blob, keep_table, write_whole
from p2pd.io.files import Descriptor, Files, disk_errors, ensure_dir
from p2pd.io.held import FileHeldBlob, hash_file, read_whole
from p2pd.io.leftovers import disk_space, find_leftovers, remove_leftover
from p2pd.io.partial import FilePartial, open_work
from p2pd.io.pieces import PieceTable
from p2pd.io.places import Places
from p2pd.io.room import Room
from p2pd.io.runtime import RuntimeContent
from p2pd.io.scan import Index, load_table, make_ready, scan
from p2pd.io.segment_files import SegmentedFile, link_file, make_own, open_blob, segment_path
from p2pd.io.uses import Uses
from p2pd.model.errors import StoreError, WrongContent
from p2pd.model.layout import MANIFEST_LIMIT, SMALL_BLOB, Layout, SegmentMeta
from p2pd.model.reference import Digest
from p2pd.model.stock import DiskSpace, Leftover, Stock, Stored
from p2pd.ports.store import MakeRoom

__all__ = ["FileStore"]

log = structlog.get_logger()


class FileStore(FileAnswers):
    """Made by `open_dir`. `close` gives the directory to the next user."""

    def __init__(self, places: Places, files: Files, index: Index, lock: Descriptor) -> None:
        super().__init__(places, files, Room())
        self._index = {digest: blob.size for digest, blob in index.items()}
        self._uses = Uses(index)
        self._lock: Descriptor | None = lock
        self._partials: dict[Digest, FilePartial] = {}
        self._beginning: set[Digest] = set()
        self._removing: dict[Digest, trio.Event] = {}
        self._readers: WeakSet[FileHeldBlob] = WeakSet()
        self._segmented: WeakValueDictionary[Digest, SegmentedFile] = WeakValueDictionary()
        """Those that somebody may be reading: all readers of a blob share its open files."""
        self._runtime: RuntimeContent | None = None
        self._rebuild = trio.Lock()
        self.lost = 0
        """Held blobs that were found gone or corrupt since the start."""

    @classmethod
    async def open_dir(cls, path: Path, files: Files | None = None) -> FileStore:
        """Open the store in `path`, making it where it is new.

        Raises StoreError, also where another process uses it, and StoreFull.
        """
        places, files = Places(path), files or Files()
        with disk_errors(f"open the store in {path}"):
            lock = await trio.to_thread.run_sync(_take_lock, places, files)
            await trio.to_thread.run_sync(make_ready, places, files)
            index = await trio.to_thread.run_sync(scan, places, files)
        held_bytes = sum(blob.size for blob in index.values())
        log.info("store.opens", path=str(path), blobs=len(index), bytes=held_bytes)
        return cls(places, files, index, lock)

    def close(self) -> None:
        """Let go of the directory. Readers that are still on a blob go on reading."""
        self._lock = None

    async def check_writable(self) -> None:
        """Raise StoreError unless the disk takes a new file now. Cancelled, it leaves its thread behind."""

        def probe() -> None:
            scratch = self._places.new_scratch()
            self._files.write_at(self._files.create(scratch), b"x", 0)
            self._files.unlink(scratch)

        with disk_errors(f"write to the store in {self._places.root}"):
            await trio.to_thread.run_sync(probe, abandon_on_cancel=True)

    # Held blobs

    def use_runtime(self, root: Path) -> RuntimeContent:
        """Hold also what the containerd at `root` holds; the caller runs what this returns."""
        self._runtime = RuntimeContent(root, self._places, self._files)
        return self._runtime

    def size_of(self, digest: Digest) -> int | None:
        size = self._index.get(digest)
        return self._runtime.size_of(digest) if size is None and self._runtime is not None else size

    def held(self) -> Iterator[tuple[Digest, int]]:
        others = self._runtime.held() if self._runtime is not None else ()
        return iter(list({**dict(others), **self._index}.items()))

    async def look(self, digest: Digest, within: float, largest: int | None = None) -> int | None:
        size = self._index.get(digest)
        if size is None and self._runtime is not None:
            return await self._runtime.look(digest, within, largest)
        return size

    async def has_twin(self, digest: Digest, within: float) -> bool:
        size = self._index.get(digest)
        if size is None or self._runtime is None:
            return False
        return await self._runtime.look(digest, within, None) == size

    async def open(self, digest: Digest, *, is_use: bool = True) -> FileHeldBlob | None:
        found = await self._find(digest, is_use=is_use)
        if found is None:
            return None
        file, size, table = found
        blob = FileHeldBlob(digest, size, file, table, self._drop_corrupt)
        self._readers.add(blob)
        return blob

    async def read(self, digest: Digest, *, is_use: bool = True) -> bytes | None:
        size = self.size_of(digest)
        if size is None or size > MANIFEST_LIMIT:
            return None
        with disk_errors(f"read {digest}"):
            file = await self._open_file(digest, size, is_use=is_use)
            if file is not None:
                body = await trio.to_thread.run_sync(read_whole, file, digest, size)
                if body is not None:
                    return body
        if file is None and digest not in self._index:
            return None  # the runtime deleted it, as it may
        log.error("blob.lost", digest=str(digest), bytes=size, reason="gone or corrupt")
        await self._drop_corrupt(digest)
        return None

    async def write(self, digest: Digest, body: bytes) -> None:
        await self._removed(digest)
        keep = partial(keep_blob, self._places, self._files, digest, body)
        if not await self._room.write(f"store {digest} ({len(body)} bytes)", keep):
            raise WrongContent(f"{len(body)} bytes are not {digest}")
        self._committed(digest, len(body))

    async def drop(self, digest: Digest) -> None:
        if self._index.pop(digest, None) is None:
            if self._runtime is not None:
                self._runtime.forget(digest, is_bad=True)
            return
        self._uses.forget(digest)
        # Shielded: a blob that is no longer in the index must not come back at the next start.
        with trio.CancelScope(shield=True):
            async with self._remove_alone(digest):
                with disk_errors(f"delete {digest}"):
                    if (file := self._segmented.pop(digest, None)) is not None:
                        await trio.to_thread.run_sync(file.hold_open)
                    await trio.to_thread.run_sync(delete_blob, self._places, self._files, digest)

    # Transfers

    async def begin(self, digest: Digest, size: int, *, resume: bool = True) -> FilePartial:
        if size < 0:
            raise WrongContent(f"{digest}: a size of {size} bytes was announced")
        if digest in self._partials or digest in self._beginning:
            raise StoreError(f"{digest} is being assembled already")
        self._beginning.add(digest)
        try:
            await self._removed(digest)
            with disk_errors(f"begin {digest} ({size} bytes)"):
                work = await trio.to_thread.run_sync(open_work, digest, size, self._places, self._files)
            assembly = FilePartial(work, self._places, self._files, self._room, self._committed, self._closed)
            while resume and await assembly.resume():
                pass
            self._partials[digest] = assembly
        finally:
            self._beginning.discard(digest)
        return assembly

    def staged_path(self, digest: Digest, index: int) -> Path:
        return self._places.staged(digest, index)

    async def staged(self, digest: Digest) -> frozenset[int]:
        with disk_errors(f"look for staged segments of {digest}"):
            return await trio.to_thread.run_sync(self._places.staged_segments, digest)

    async def segment_meta(self, digest: Digest, index: int) -> SegmentMeta | None:
        found = await self._find(digest)
        if found is None:
            return None
        file, size, table = found
        if table is None:
            with disk_errors(f"read {digest}"):
                table = await hash_file(file, digest, size)
        if table is None:
            await self._drop_corrupt(digest)
            return None
        return table.segment_meta(digest, index)

    async def own_staged(self, digest: Digest, index: int) -> Path:
        path = self._places.staged(digest, index)
        own = partial(make_own, self._files, path, self._places.new_scratch())
        await self._room.write(f"copy staged segment {index} of {digest}", own)
        return path

    async def stage(self, digest: Digest, index: int) -> Path | None:
        assembly = self._partials.get(digest)
        if digest not in self._index and assembly is not None and assembly.segment_meta(index) is not None:
            segment = Layout(assembly.size).segment(index)
            if await self._link(digest, index, assembly.segment_path(index)):
                return self.staged_path(digest, index)
            return await self._copy(digest, index, assembly.assembled(segment.offset, segment.stop))
        blob = await self.open(digest)
        if blob is None or not 0 <= index < Layout(blob.size).segment_count:
            return None
        segment = Layout(blob.size).segment(index)
        source = segment_path(self._places.blob(digest), blob.size, index)
        if digest in self._index and await trio.to_thread.run_sync(source.is_file):
            async with aclosing(blob.chunks(segment.offset, segment.stop)) as pieces:
                async for _ in pieces:
                    pass  # read only to be checked: peers blame a node for what rotted on its disk
            if await self._link(digest, index, source):
                return self.staged_path(digest, index)
        return await self._copy(digest, index, blob.chunks(segment.offset, segment.stop))

    async def unstage(self, digest: Digest, index: int) -> None:
        with disk_errors(f"delete staged segment {index} of {digest}"):
            await trio.to_thread.run_sync(self._files.unlink, self._places.staged(digest, index))

    # Room

    def stock(self) -> Stock:
        reading = {blob.digest for blob in self._readers}
        held = tuple(
            Stored(digest, size, self._uses.idle(digest), digest in reading)
            for digest, size in self._index.items()
        )
        under_way = [each for digest, each in self._partials.items() if digest not in self._index]
        pending = sum(each.size - each.frontier for each in under_way)
        return Stock(held, sum(each.size for each in under_way), pending)

    async def leftovers(self) -> list[Leftover]:
        busy = {*self._partials, *self._beginning}
        with disk_errors("look through the store"):
            return await trio.to_thread.run_sync(find_leftovers, self._places, busy)

    async def remove(self, leftover: Leftover) -> None:
        digest = leftover.digest
        async with self._remove_alone(digest):
            if leftover.segment is None and (digest in self._partials or digest in self._beginning):
                return
            with disk_errors(f"delete {leftover.name}"):
                await trio.to_thread.run_sync(remove_leftover, self._places, self._files, leftover)

    async def space(self) -> DiskSpace:
        with disk_errors("see how full the disk is"):
            return await trio.to_thread.run_sync(disk_space, self._places)

    def on_full(self, make_room: MakeRoom) -> None:
        self._room.make_room = make_room

    # Below: the work behind it.

    async def _removed(self, digest: Digest) -> None:
        """Until nobody deletes files of this digest: they may be written again then."""
        while (removing := self._removing.get(digest)) is not None:
            await removing.wait()

    @asynccontextmanager
    async def _remove_alone(self, digest: Digest) -> AsyncIterator[None]:
        await self._removed(digest)
        self._removing[digest] = trio.Event()
        try:
            yield
        finally:
            self._removing.pop(digest).set()

    async def _open_file(self, digest: Digest, size: int, *, is_use: bool = True) -> Descriptor | None:
        if digest not in self._index:
            found = await self._runtime.open(digest) if self._runtime is not None else None
            return found[0] if found is not None else None
        stamp = is_use and self._uses.note(digest)
        path = self._places.blob(digest)
        file = await trio.to_thread.run_sync(open_blob, path, size)
        if isinstance(file, SegmentedFile):
            file = self._share(digest, file)
        if file is not None and stamp:
            with contextlib.suppress(OSError):  # on a read-only disk content grows old too early
                await trio.to_thread.run_sync(self._files.touch, file, time.time())
        return file

    async def _find(
        self, digest: Digest, *, is_use: bool = True
    ) -> tuple[Descriptor, int, PieceTable | None] | None:
        """Open a held blob with its piece table (None when small); forget it where it is gone or wrong."""
        size = self._index.get(digest)
        if size is None:
            return await self._find_elsewhere(digest)
        with disk_errors(f"read {digest}"):
            file = await self._open_file(digest, size, is_use=is_use)
            if file is not None and size <= SMALL_BLOB:
                return file, size, None
            table = await self._table(file, digest, size) if file is not None else None
        if file is None or table is None:
            if digest not in self._index:  # it was let go meanwhile: nothing was wrong with it
                return await self._find_elsewhere(digest)
            log.error("blob.lost", digest=str(digest), bytes=size, reason="gone or corrupt")
            await self._drop_corrupt(digest)
            return None
        return file, size, table

    async def _find_elsewhere(self, digest: Digest) -> tuple[Descriptor, int, PieceTable | None] | None:
        if self._runtime is None:
            return None
        with disk_errors(f"read {digest}"):
            return await self._runtime.open(digest)

    async def _table(self, file: Descriptor, digest: Digest, size: int) -> PieceTable | None:
        """The piece table of a large blob, made again from its bytes where the sidecar is no good."""
        table = await trio.to_thread.run_sync(load_table, self._places, digest, size)
        if table is not None:
            return table
        async with self._rebuild:
            table = await trio.to_thread.run_sync(load_table, self._places, digest, size)
            if table is not None or digest not in self._index:
                return table  # without a blob a sidecar would stay for ever
            if (table := await hash_file(file, digest, size)) is not None and digest in self._index:
                log.warning("blob.checksums_rebuilt", digest=str(digest), bytes=size)
                # On a disk that takes no more writes the table serves from memory.
                with contextlib.suppress(OSError):
                    await trio.to_thread.run_sync(keep_table, self._places, self._files, digest, table)
        return table

    async def _drop_corrupt(self, digest: Digest) -> None:
        if digest not in self._index and self._runtime is not None:
            self._runtime.forget(digest, is_bad=True)
            return
        self.lost += 1
        try:
            await self.drop(digest)
        except StoreError as error:
            log.warning("blob.delete_fails", digest=str(digest), reason=str(error))

    def _share(self, digest: Digest, file: SegmentedFile) -> SegmentedFile:
        """What readers of this blob have open, if it is still the same."""
        known = self._segmented.get(digest)
        if known is not None and os.path.sameopenfile(known.fd, file.fd):
            return known
        self._segmented[digest] = file
        return file

    async def _link(self, digest: Digest, index: int, source: Path) -> bool:
        link = partial(link_file, self._files, source, self._places.staged(digest, index))
        return await self._room.write(f"stage segment {index} of {digest}", link)

    async def _copy(self, digest: Digest, index: int, chunks: AsyncGenerator[bytes, None]) -> Path:
        """The file is whole or not there at all."""
        target = self._places.staged(digest, index)
        doing = f"stage segment {index} of {digest}"
        await write_whole(doing, chunks, target, self._places.new_scratch(), self._files, self._room)
        return target

    def _committed(self, digest: Digest, size: int) -> None:
        self._index[digest] = size
        self._uses.begin(digest)
        if (assembly := self._partials.get(digest)) is not None and assembly.segmented is not None:
            self._segmented[digest] = assembly.segmented

    def _closed(self, assembly: FilePartial) -> None:
        if self._partials.get(assembly.digest) is assembly:
            del self._partials[assembly.digest]


def _take_lock(places: Places, files: Files) -> Descriptor:
    ensure_dir(files, places.root)
    lock = files.open_rw(places.lock)
    try:
        fcntl.flock(lock.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StoreError(
            f"the store in {places.root} is in use by another process; stop that or choose another state_dir"
        ) from error
    return lock
