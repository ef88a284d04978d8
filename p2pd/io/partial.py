"""A blob in assembly on disk: one writer, any number of readers that follow it.

Rules that hold here:
- The frontier moves, in the event loop, only after its bytes are there and hashed. A worker
  thread that has begun is never abandoned, so a cancelled call leaves frontier and hashes in step.
- The journal beside the file has the checksums of its whole pieces. What it does not vouch for is
  cut off when the assembly is resumed: after a power cut the file's tail may be anything.
- Readers get the piece with the last byte only once the whole sha256 was right; the blob counts as
  held only once it is durable, too.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import trio

from p2pd.io.files import (
    Descriptor,
    Files,
    disk_errors,
    ensure_dir,
    open_readonly,
    read_into,
    read_sound,
    replace_file,
)
from p2pd.io.pieces import ENTRY_BYTES, PieceHasher, entry_of
from p2pd.io.places import Places
from p2pd.io.room import Room
from p2pd.io.segment_files import AssemblyFiles, SegmentedFile, open_blob, remove_blob
from p2pd.model.errors import P2pdError, StoreError, StoreFull, Unavailable, WrongContent
from p2pd.model.layout import SHA1_BYTES, SMALL_BLOB, Layout, SegmentMeta
from p2pd.model.reference import Digest
from p2pd.ports.store import Hasher

__all__ = ["FilePartial", "Work", "open_work"]

_READ = 1024 * 1024
_LEAST_READ = 64 * 1024
_READ_BY_ALL = 32 * 1024 * 1024
"""What all readers of one blob hold of it at a time: each of a crowd reads less, down to the least."""

_PIECES_A_HOP = 16

_RUN = 2 * 1024 * 1024
_RUNS_A_HOP = 2
"""A staged segment is hashed in long runs: what each hop to a thread wakes (the writer, every reader) is
woken less; and where it must be copied, the kernel makes whole large folios, without clearing them first."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Work:
    """The files of one assembly."""

    digest: Digest
    size: int
    data: AssemblyFiles
    journal: Descriptor


class FilePartial:
    """`p2pd.ports.store.Partial` on files."""

    def __init__(
        self,
        work: Work,
        places: Places,
        files: Files,
        room: Room,
        on_commit: Callable[[Digest, int], None],
        on_close: Callable[[FilePartial], None],
    ) -> None:
        self._work: Work | None = work
        self._digest, self._size = work.digest, work.size
        self._hasher = PieceHasher(work.size)
        self._frontier = self._journaled = 0
        self._places, self._files, self._room = places, files, room
        self._on_commit, self._on_close = on_commit, on_close
        self._layout = Layout(self._size)
        self._error: P2pdError | None = None
        self._verified = False
        self._committed = False
        self._published = False
        self._unsure = False
        self._resumed = False
        self._held_at: int | None = None
        self._growth = trio.lowlevel.ParkingLot()
        self._buffer: bytearray | None = None
        self._readers = 0

    @property
    def digest(self) -> Digest:
        return self._digest

    @property
    def size(self) -> int:
        return self._size

    @property
    def frontier(self) -> int:
        return self._frontier

    # Writer

    async def resume(self) -> bool:
        work = self._writable()
        with disk_errors(f"resume {self._digest} ({self._size} bytes)"):
            is_more = await trio.to_thread.run_sync(_hash_again, work, self._hasher)
            if not is_more:
                await trio.to_thread.run_sync(_cut, self._files, work, self._hasher)
        self._frontier, self._journaled = self._hasher.position, self._hasher.piece_count
        self._growth.unpark_all()
        if not is_more:
            self._resumed = True
            if self._frontier:
                log.info("transfer.resumes", digest=str(self._digest), bytes=self._frontier, size=self._size)
        return is_more

    async def append(self, data: bytes) -> None:
        work = self._writable()
        if len(data) > self._size - self._frontier:
            raise WrongContent(f"{self._digest}: more than the announced {self._size} bytes came")
        if data:
            await self._add(partial(self._write, work, data))

    async def append_segment(self, staged: Path, meta: SegmentMeta, pieces: int | None = None) -> None:
        work = self._writable()
        if (meta.digest, meta.blob_size) != (self._digest, self._size) or not meta.is_consistent:
            raise StoreError(f"metadata of segment {meta.index} does not fit {self._digest}")
        segment = meta.segment
        end = segment.stop
        if pieces is not None:
            end = min(end, segment.offset + pieces * segment.piece_length)
        if not segment.offset <= self._frontier < end:
            raise StoreError(
                f"{self._digest}: segment {meta.index} is not next, {self._frontier} bytes are there"
            )
        with disk_errors(f"read staged segment {staged.name}"):
            source = await trio.to_thread.run_sync(open_readonly, staged)
        adopt = partial(work.data.adopt, meta.index, staged, self._frontier)
        is_ours = await self._room.write(f"take segment {staged.name}", adopt)
        while self._frontier < end:
            stop = min(end, (self._frontier // _RUN + _RUNS_A_HOP) * _RUN)
            await self._add(partial(self._take_staged, work, source, meta, stop, is_ours))

    async def commit(self) -> None:
        work = self._writable()
        if self._frontier < self._size:
            raise StoreError(f"{self._digest}: only {self._frontier} of {self._size} bytes are there")
        if self._hasher.sha256 != self._digest.hex:
            wrong = WrongContent(
                f"{self._digest}: its {self._size} bytes hash to sha256:{self._hasher.sha256}"
            )
            try:
                # Shielded: left on disk they would be resumed, and blamed on the next source.
                with disk_errors(f"drop the wrong bytes of {self._digest}"), trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._discard)
            finally:
                self.fail(wrong)
            raise wrong
        # Readers need not wait for the disk: whether it keeps the blob does not change the bytes.
        self._verified = True
        self._growth.unpark_all()
        await self._room.write(f"store {self._digest} ({self._size} bytes)", partial(self._publish, work))
        self._committed = True
        self._on_commit(self._digest, self._size)
        self._growth.unpark_all()

    def hold_back(self, on: bool) -> None:
        if on and self._held_at is None:
            self._held_at = self._readable()
        elif not on:
            self._held_at = None
            self._growth.unpark_all()

    def fail(self, error: P2pdError) -> None:
        if self._error is None and not self._committed:
            self._error = error
            self._growth.unpark_all()

    async def aclose(self) -> None:
        if self._work is None:
            return
        self._work = self._buffer = None
        self.fail(Unavailable(f"the transfer of {self._digest} was stopped"))
        is_useless = not self._hasher.piece_count or isinstance(self._error, StoreFull | WrongContent)
        if self._resumed and not self._published and is_useless:
            # Nothing to resume: what no source ever gave must leave nothing behind, nor what fills the disk,
            # nor bytes that may be the wrong ones: the next attempt would build on them.
            with contextlib.suppress(OSError), trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._discard)
        self._on_close(self)

    # Readers

    def hash_so_far(self) -> Hasher:
        return self._hasher.copy_sha256()

    @property
    def segmented(self) -> SegmentedFile | None:
        """What its readers have open, where that is a directory."""
        reader = self._work.data.reader if self._work is not None else None
        return reader if isinstance(reader, SegmentedFile) else None

    def segment_path(self, index: int) -> Path:
        """The file of a segment that lies wholly below the frontier; nothing is written to it any more."""
        return self._writable().data.segment_path(index)

    def segment_meta(self, index: int) -> SegmentMeta | None:
        if not 0 <= index < self._layout.segment_count:
            return None
        segment = self._layout.segment(index)
        if segment.stop > self._frontier:
            return None
        return SegmentMeta(self._digest, self._size, index, self._hasher.segment_hashes(index))

    async def assembled(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Bytes [start, stop) below the frontier, for this node's own use: the tail is not held back."""
        if self._work is None:
            raise StoreError(f"{self._digest}: its assembly was closed")
        file = self._work.data
        for position in range(start, stop, _READ):
            length = min(stop - position, _READ)
            yield await trio.to_thread.run_sync(file.read_at, position, length)

    async def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        stop = min(stop, self._size)
        position = start
        if self._work is None and not self._verified and self._error is not None:
            # There is no file any more; why is what the reader wants to know.
            raise copy.copy(self._error) from self._error
        # Later renames and unlinks do not harm a reader that has the files open.
        file = self._work.data if self._work is not None else await self._open_held()
        self._readers += 1
        try:
            while position < stop:
                limit = min(self._readable(), stop)
                error = self._error
                if error is not None and (position >= limit or isinstance(error, WrongContent)):
                    # A copy, because every `raise` of one object adds to its traceback.
                    raise copy.copy(error) from error
                if position >= limit:
                    await self._growth.park()
                    continue
                most = min(_READ, max(_LEAST_READ, _READ_BY_ALL // self._readers))
                with disk_errors(f"read {self._digest}"):
                    data = await trio.to_thread.run_sync(file.read_at, position, min(limit - position, most))
                if not data:
                    raise StoreError(f"cannot read {self._digest}: its file was cut off")
                yield data
                position += len(data)
        finally:
            self._readers -= 1

    async def _open_held(self) -> Descriptor:
        with disk_errors(f"read {self._digest}"):
            file = await trio.to_thread.run_sync(open_blob, self._places.blob(self._digest), self._size)
        if file is None:
            raise StoreError(f"cannot read {self._digest}: it was deleted")
        return file

    def _readable(self) -> int:
        if self._verified or self._size == 0:
            return self._size
        limit = min(self._frontier, self._layout.stripe(self._layout.stripe_count - 1).start)
        return limit if self._held_at is None else min(limit, self._held_at)

    # Below: the writer's work. What runs in a worker thread says so.

    def _writable(self) -> Work:
        if self._work is None or self._committed:
            raise StoreError(f"{self._digest}: its assembly was closed")
        self._check_sure()
        return self._work

    def _check_sure(self) -> None:
        if self._unsure:
            raise StoreError(f"{self._digest}: the disk failed to keep its bytes; begin again")

    async def _add(self, write: Callable[[], None]) -> None:
        try:
            await self._room.write(f"write {self._digest} at {self._frontier}", write)
        finally:
            # Of several runs some may have been written before one failed.
            self._frontier = self._hasher.position
            self._growth.unpark_all()

    def _take_staged(
        self, work: Work, source: Descriptor, meta: SegmentMeta, stop: int, is_ours: bool
    ) -> None:
        """Hash a staged segment from the frontier to `stop` of the blob; copy it, too, unless it `is_ours`.

        In a thread; may be repeated.
        """
        segment = meta.segment
        # One buffer for all runs: fresh memory costs more than the copy into it.
        if self._buffer is None:
            self._buffer = bytearray(min(_RUN, self._size))
        while (start := self._hasher.position) < stop:
            data = memoryview(self._buffer)[: min(stop, (start // _RUN + 1) * _RUN) - start]
            if read_into(source, start - segment.offset, data) != len(data):
                raise StoreError(f"{self._digest}: a staged segment is shorter than its metadata says")
            if not is_ours:
                work.data.write_at(data, start)
            piece = (start - segment.offset) // segment.piece_length
            self._hash(work, data, meta.piece_hashes[piece * SHA1_BYTES :])

    def _write(self, work: Work, data: bytes) -> None:
        """Write, then hash, the next bytes. In a thread."""
        work.data.write_at(data, self._hasher.position)
        self._hash(work, data, b"")

    def _hash(self, work: Work, data: bytes | memoryview, sha1s: bytes) -> None:
        """Count bytes that are written as there; `sha1s`: those of their pieces, where known. In a thread."""
        self._hasher.update(data, sha1s)
        if self._hasher.piece_count > self._journaled:
            # Its loss costs a resumed transfer some bytes, never this one: tried again with the next piece.
            with contextlib.suppress(OSError):
                self._files.write_at(
                    work.journal, self._hasher.entries(self._journaled), self._journaled * ENTRY_BYTES
                )
                self._journaled = self._hasher.piece_count

    def _publish(self, work: Work) -> None:
        """Make it durable and move it among the held blobs. In a thread; may be repeated after an error."""
        places, files = self._places, self._files
        if not self._published:
            self._check_sure()
            try:
                work.data.sync()
            except OSError:
                # After a failed fsync the kernel may forget the pages and let the next one succeed.
                self._unsure = True
                raise
            ensure_dir(files, places.blob(self._digest).parent)
            if self._size > SMALL_BLOB:
                table = self._hasher.table().encode()
                replace_file(files, places.new_scratch(), places.sidecar(self._digest), table)
            if not work.data.is_one:  # a file would be replaced by the rename, a directory bars it
                remove_blob(files, places.blob(self._digest), places.new_scratch())
            files.rename(work.data.path, places.blob(self._digest))
            self._published = True
        files.sync_dir(places.blob(self._digest).parent)
        with contextlib.suppress(OSError):
            files.unlink(places.journal(self._digest, self._size))

    def _discard(self) -> None:
        """Remove what is on disk. In a thread."""
        places = self._places
        remove_blob(self._files, places.partial(self._digest, self._size), places.new_scratch())
        self._files.unlink(self._places.journal(self._digest, self._size))


def open_work(digest: Digest, size: int, places: Places, files: Files) -> Work:
    """Open the files of an assembly, dropping any of the blob in another size. Blocks; raises OSError."""
    for path in places.partials.glob(f"{digest.hex}.*"):
        if path not in (places.partial(digest, size), places.journal(digest, size)):
            remove_blob(files, path, places.new_scratch())
    data = AssemblyFiles(places.partial(digest, size), size, files, places.new_scratch)
    return Work(digest, size, data, files.open_rw(places.journal(digest, size)))


def _hash_again(work: Work, hasher: PieceHasher) -> bool:
    """Take the next few pieces; False when there is no more good one.

    A few a hop, so that a stop of the daemon need not wait for a whole large blob.
    """
    for _ in range(_PIECES_A_HOP):
        length = hasher.piece_left
        told = read_sound(work.journal, hasher.piece_count * ENTRY_BYTES, ENTRY_BYTES)
        piece = read_sound(work.data.reader, hasher.position, length)
        if not length or len(piece) != length or entry_of(piece) != told:
            return False
        hasher.update(piece, told[:SHA1_BYTES])
    return True


def _cut(files: Files, work: Work, hasher: PieceHasher) -> None:
    work.data.cut(hasher.position)
    files.truncate(work.journal, hasher.piece_count * ENTRY_BYTES)
