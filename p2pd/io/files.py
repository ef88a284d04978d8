"""The disk, as the store uses it: a thin seam over the system calls that change something.

Everything here blocks: call it from worker threads. Tests put a `Files` in its place that cuts
the power between any two calls.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from p2pd.model.errors import StoreError, StoreFull

__all__ = [
    "Descriptor",
    "Files",
    "disk_errors",
    "ensure_dir",
    "open_readonly",
    "read_into",
    "read_sound",
    "replace_file",
]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_HINTS = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "raise the quota or free some space",
    errno.EROFS: "remount the file system read-write",
    errno.EACCES: "check the owner and mode of the state directory",
    errno.EPERM: "check the owner and mode of the state directory",
    errno.EIO: "the disk may be failing, see the kernel log",
}


class Descriptor:
    """An open file, closed when the last reference goes.

    Readers in worker threads share one, so it has no `close`: an explicit close could hand the
    number to another file while a thread is still reading from it.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def length(self) -> int:
        """Bytes of the file."""
        return os.fstat(self.fd).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length) of the file, fewer only where it ends."""
        data = os.pread(self.fd, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        missing = length - len(data)
        while missing > 0 and (data := os.pread(self.fd, missing, offset + length - missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.fd)


class Files:
    """System calls that change the disk. All raise OSError."""

    def create(self, path: Path) -> Descriptor:
        """Open an empty file for reading and writing."""
        return Descriptor(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644))

    def open_rw(self, path: Path) -> Descriptor:
        """Open for reading and writing, keeping what is there."""
        return Descriptor(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))

    def write_at(self, file: Descriptor, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        while view:
            written = os.pwrite(file.fd, view, offset)
            view, offset = view[written:], offset + written

    def truncate(self, file: Descriptor, length: int) -> None:
        os.ftruncate(file.fd, length)

    def sync(self, file: Descriptor) -> None:
        os.fsync(file.fd)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a file; it may be gone already."""
        path.unlink(missing_ok=True)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; `target` must be free."""
        target.hardlink_to(source)

    def remove_dir(self, path: Path) -> None:
        """Remove an empty directory."""
        path.rmdir()

    def touch(self, file: Descriptor, at: float) -> None:
        """Set the time of last change to `at` (epoch seconds), unless it is later already."""
        known = os.fstat(file.fd)
        os.utime(file.fd, (known.st_atime, max(at, known.st_mtime)))

    def make_dir(self, path: Path) -> None:
        """Make a directory; it may be there already."""
        path.mkdir(exist_ok=True)

    def sync_dir(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def ensure_dir(files: Files, path: Path) -> None:
    """Make a directory and its missing parents, durably."""
    if path.is_dir():
        return
    ensure_dir(files, path.parent)
    files.make_dir(path)
    try:
        files.sync_dir(path.parent)
    except OSError:
        # Else the next call would find it here, and take it for durable.
        with contextlib.suppress(OSError):
            path.rmdir()
        raise


def replace_file(files: Files, scratch: Path, target: Path, data: bytes) -> None:
    """Make `target` hold `data`, durably: after a power cut it has the old or the new content, whole.

    `scratch` is a path of the same file system that nobody else uses.
    """
    try:
        file = files.create(scratch)
        files.write_at(file, data, 0)
        files.sync(file)
        files.rename(scratch, target)
    except OSError:
        with contextlib.suppress(OSError):
            files.unlink(scratch)
        raise
    files.sync_dir(target.parent)


def open_readonly(path: Path) -> Descriptor:
    return Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def read_sound(file: Descriptor, offset: int, length: int) -> bytes:
    """Read bytes with a checksum: those that the disk cannot read (a bad sector) count as gone."""
    try:
        return file.read_at(offset, length)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def read_into(file: Descriptor, offset: int, buffer: memoryview) -> int:
    """Fill `buffer` from `offset` on; how many bytes there were."""
    done = 0
    while done < len(buffer) and (count := os.preadv(file.fd, [buffer[done:]], offset + done)):
        done += count
    return done


@contextlib.contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn OSError into StoreFull or StoreError, `cannot <doing>: why; what next`."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        hint = _HINTS.get(error.errno or 0)
        line = f"cannot {doing}: {why}" + (f"; {hint}" if hint else "")
        raise (StoreFull if error.errno in _NO_ROOM else StoreError)(line) from error
