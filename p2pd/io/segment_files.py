"""The bytes of a blob on disk: a file for each segment.

A blob of one segment is one file, a larger one a directory of files that are named by the segments' numbers.
So the file that the swarm engine wrote becomes the blob's by a second name (a hard link), not by a second
write. What has two names is written by neither side any more, unless it is made its own first.

Earlier releases kept a large blob in one file, too; it is read as it is. All here blocks, and raises OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from p2pd.io.files import Descriptor, Files, open_readonly
from p2pd.model.layout import SEGMENT, Layout

__all__ = [
    "AssemblyFiles",
    "SegmentedFile",
    "length_of_segments",
    "link_file",
    "make_own",
    "open_blob",
    "remove_blob",
    "segment_path",
]

_OPEN_AT_ONCE = 8
"""Files of one blob that stay open, however many readers are on it."""

_COPY = 1024 * 1024

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.ENOSYS, errno.ENOENT})
"""The last: a commit may move, and an eviction delete, a blob that somebody goes on to read."""


class SegmentedFile(Descriptor):
    """A directory of segments, read as one file; `fd` is the directory's, which may be renamed meanwhile."""

    __slots__ = ("__weakref__", "_lock", "_most", "_segments")

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._segments: OrderedDict[int, Descriptor] = OrderedDict()
        self._lock = threading.Lock()
        self._most = _OPEN_AT_ONCE

    def length(self) -> int:
        return length_of_segments(self.fd)

    def read_at(self, offset: int, length: int) -> bytes:
        parts = []
        while length > 0:
            index, start = divmod(offset, SEGMENT)
            wanted = min(length, SEGMENT - start)
            try:
                data = self.segment(index).read_at(start, wanted)
            except FileNotFoundError:
                data = b""
            parts.append(data)
            if len(data) < wanted:
                break
            offset, length = offset + wanted, length - wanted
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def segment(self, index: int) -> Descriptor:
        """The file of one segment, opened where it is not."""
        with self._lock:
            file = self._segments.get(index)
            if file is None:
                fd = os.open(str(index), os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
                file = self._segments[index] = Descriptor(fd)
                while len(self._segments) > self._most:
                    self._segments.popitem(last=False)
            else:
                self._segments.move_to_end(index)
            return file

    def forget(self, index: int | None = None) -> None:
        """Another file has taken the place of this segment's, or of any."""
        with self._lock:
            if index is None:
                self._segments.clear()
            else:
                self._segments.pop(index, None)

    def hold_open(self) -> None:
        """Open all segments: readers go on when they are deleted."""
        self._most = len(os.listdir(self.fd))
        for index in range(self._most):
            with contextlib.suppress(OSError):
                self.segment(index)


class AssemblyFiles:
    """Those of a blob in assembly: one thread at a time writes, any may read what was written."""

    def __init__(self, path: Path, size: int, files: Files, new_scratch: Callable[[], Path]) -> None:
        self.path = path
        self._size, self._count = size, Layout(size).segment_count
        self._files, self._new_scratch = files, new_scratch
        self._writer: tuple[int, Descriptor] | None = None
        self.reader: Descriptor
        if self.is_one:
            self.reader = files.open_rw(path)
        else:
            if path.is_file():  # an assembly of an earlier release
                files.unlink(path)
            files.make_dir(path)
            self.reader = SegmentedFile(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    @property
    def is_one(self) -> bool:
        """Whether the blob is a single file."""
        return self._count <= 1

    def segment_path(self, index: int) -> Path:
        return segment_path(self.path, self._size, index)

    def read_at(self, offset: int, length: int) -> bytes:
        return self.reader.read_at(offset, length)

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        """Write the bytes that follow the `offset` there are."""
        view = memoryview(data)
        while view:
            index, start = divmod(offset, SEGMENT)
            part = view[: SEGMENT - start]
            self._files.write_at(self._own(index), part, start)
            view, offset = view[len(part) :], offset + len(part)

    def adopt(self, index: int, staged: Path, offset: int) -> bool:
        """Have the swarm's file of segment `index` as the blob's, where `offset` bytes of the blob are there.

        False where that cannot be: its bytes are to be written then. To be asked again for more of it.
        """
        path = self.segment_path(index)
        with contextlib.suppress(FileNotFoundError):
            if path.samefile(staged):
                self._writer = None
                return True
        if offset > index * SEGMENT:
            return False
        self._writer = None
        if not link_file(self._files, staged, path):
            return False
        self._reopen(index)
        return True

    def cut(self, length: int) -> None:
        """Drop what is behind the first `length` bytes; what the swarm has a name for, too, is left to it."""
        last, rest = divmod(length, SEGMENT)
        self._writer = None
        if not self.is_one:
            kept = {str(index) for index in range(last + (rest > 0))}
            for name in set(os.listdir(self.path)) - kept:
                self._files.unlink(self.path / name)
            self._reopen()
            if not rest:
                return
        with contextlib.suppress(FileNotFoundError):
            if self.segment_path(last).stat().st_nlink == 1:
                self._files.truncate(self._own(last), rest)

    def sync(self) -> None:
        for index in range(self._count):
            reader = self.reader
            self._files.sync(reader.segment(index) if isinstance(reader, SegmentedFile) else reader)
        if not self.is_one:
            self._files.sync_dir(self.path)

    def _own(self, index: int) -> Descriptor:
        """The file of a segment, for writing."""
        if self._writer is None or self._writer[0] != index:
            path = self.segment_path(index)
            make_own(self._files, path, self._new_scratch())
            self._writer = (index, self._files.open_rw(path))
            self._reopen(index)
        return self._writer[1]

    def _reopen(self, index: int | None = None) -> None:
        """Have readers use the file that is in the place of a segment's, or of any, now."""
        if isinstance(self.reader, SegmentedFile):
            self.reader.forget(index)
        else:
            self.reader = open_readonly(self.path)


def segment_path(blob: Path, size: int, index: int) -> Path:
    """The file of one segment of the blob at `blob`."""
    return blob / str(index) if Layout(size).segment_count > 1 else blob


def length_of_segments(folder: str | int) -> int:
    """Bytes of a blob that is a directory, given by its path or descriptor."""
    with os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries)


def open_blob(path: Path, size: int) -> Descriptor | None:
    """Open a held blob of exactly `size` bytes; None where it is gone or has another size."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    file = SegmentedFile(fd) if stat.S_ISDIR(os.fstat(fd).st_mode) else Descriptor(fd)
    return file if file.length() == size else None


def remove_blob(files: Files, path: Path, scratch: Path) -> None:
    """Delete the file or directory of a blob, which may be gone already; a directory at one blow."""
    if not path.is_dir():
        files.unlink(path)
        return
    files.rename(path, scratch)
    for entry in os.scandir(scratch):
        files.unlink(Path(entry.path))
    files.remove_dir(scratch)


def link_file(files: Files, source: Path, target: Path) -> bool:
    """Put a second name of `source` in the place of `target`; False where it can have none."""
    files.unlink(target)
    try:
        files.link(source, target)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    return True


def make_own(files: Files, path: Path, scratch: Path) -> None:
    """Where a file has another name, too, put a copy in the place of this one."""
    try:
        if path.stat().st_nlink == 1:
            return
    except FileNotFoundError:
        return
    source = open_readonly(path)
    try:
        copy, offset = files.create(scratch), 0
        while data := source.read_at(offset, _COPY):
            files.write_at(copy, data, offset)
            offset += len(data)
        files.rename(scratch, path)
    except OSError:
        with contextlib.suppress(OSError):
            files.unlink(scratch)
        raise
