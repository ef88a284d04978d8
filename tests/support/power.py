"""A disk that fails: `Files` whose calls are counted, cut, refused, and forgotten as in a power cut."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from p2pd.io.files import Descriptor, Files


class PowerCut(BaseException):
    """Nothing below may go on: not an Exception, so that no handler mends it."""


class StepFiles(Files):
    """Calls `on_step(number, name)` before each system call; what that raises comes out of the call."""

    def __init__(self, on_step: Callable[[int, str], None] = lambda _number, _name: None) -> None:
        self.on_step = on_step
        self.steps: list[str] = []

    def _step(self, name: str) -> None:
        self.steps.append(name)
        self.on_step(len(self.steps) - 1, name)

    def create(self, path: Path) -> Descriptor:
        self._step("create")
        return super().create(path)

    def open_rw(self, path: Path) -> Descriptor:
        self._step("open_rw")
        return super().open_rw(path)

    def write_at(self, file: Descriptor, data: bytes | memoryview, offset: int) -> None:
        try:
            self._step("write_at")
        except BaseException:
            super().write_at(file, data[: len(data) // 2], offset)  # a torn write
            raise
        super().write_at(file, data, offset)

    def truncate(self, file: Descriptor, length: int) -> None:
        self._step("truncate")
        super().truncate(file, length)

    def sync(self, file: Descriptor) -> None:
        self._step("sync")

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._step("unlink")
        super().unlink(path)

    def link(self, source: Path, target: Path) -> None:
        self._step("link")
        super().link(source, target)

    def remove_dir(self, path: Path) -> None:
        self._step("remove_dir")
        super().remove_dir(path)

    def make_dir(self, path: Path) -> None:
        self._step("make_dir")
        super().make_dir(path)

    def sync_dir(self, path: Path) -> None:
        self._step("sync_dir")


class CutFiles(StepFiles):
    """The power fails at one step. `after(...)` makes the directory that the next start may find.

    What is durable is kept by POSIX's letter: a file's bytes as of its last fsync, a directory's
    names as of the last fsync of that directory. Nothing else is promised.
    """

    def __init__(self, root: Path, cut_at: int) -> None:
        super().__init__(self._maybe_cut)
        self._root, self._cut_at = root, cut_at
        self._open: dict[int, int] = {}  # every inode seen, held open so that its number is not used again
        self._synced: dict[int, bytes] = {}
        self._names: dict[Path, int] = {}
        self._dirs: set[Path] = {root}
        self._moved: dict[Path, Path] = {}  # directories whose new place is not durable yet
        for folder, _, names in os.walk(root):
            self._dirs.add(Path(folder))
            for name in names:
                self._see(Path(folder) / name, synced=True)

    def _maybe_cut(self, number: int, _name: str) -> None:
        if number >= self._cut_at:
            raise PowerCut

    def _see(self, path: Path, *, synced: bool) -> None:
        inode = path.stat().st_ino
        if inode not in self._open:
            self._open[inode] = os.open(path, os.O_RDONLY)
            self._synced[inode] = path.read_bytes() if synced else b""
        if synced:
            self._names[path] = inode

    def create(self, path: Path) -> Descriptor:
        file = super().create(path)
        self._see(path, synced=False)
        return file

    def open_rw(self, path: Path) -> Descriptor:
        file = super().open_rw(path)
        self._see(path, synced=False)
        return file

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self._see(target, synced=False)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        if target.is_dir():
            self._moved[target] = source

    def sync(self, file: Descriptor) -> None:
        super().sync(file)
        status = os.fstat(file.fd)
        self._synced[status.st_ino] = os.pread(file.fd, status.st_size, 0)

    def sync_dir(self, path: Path) -> None:
        super().sync_dir(path)
        self._names = {name: inode for name, inode in self._names.items() if name.parent != path}
        for entry in os.scandir(path):
            if entry.is_dir():
                self._settle(Path(entry.path))
            else:
                self._names[Path(entry.path)] = entry.inode()

    def _settle(self, folder: Path) -> None:
        """A directory's place is durable, with the names that were so in its old one."""
        old = self._moved.pop(folder, folder)
        self._dirs = self._dirs - {old} | {folder}
        self._names = {
            (folder / name.name if name.parent == old else name): inode for name, inode in self._names.items()
        }

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def leave_everything(self, target: Path) -> None:
        """All that was done survives, synced or not."""
        shutil.copytree(self._root, target)

    def leave_names_only(self, target: Path) -> None:
        """Names and lengths survive, but bytes that were not synced are zeros."""
        shutil.copytree(self._root, target)
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = Path(folder) / name
                status = path.stat()
                kept = self._synced.get(status.st_ino, b"")[: status.st_size]
                (target / path.relative_to(self._root)).write_bytes(kept.ljust(status.st_size, b"\0"))

    def leave_synced_only(self, target: Path) -> None:
        """Only what was synced survives."""
        self._dirs = {folder for folder in self._dirs if set(self._within(folder)) <= self._dirs}
        for folder in sorted(self._dirs):
            (target / folder.relative_to(self._root)).mkdir()
        for path, inode in self._names.items():
            if path.parent in self._dirs:
                (target / path.relative_to(self._root)).write_bytes(self._synced[inode])

    def _within(self, folder: Path) -> list[Path]:
        """The directories from the root down to `folder`."""
        return [self._root, *(parent for parent in (folder, *folder.parents) if self._root in parent.parents)]
