"""Files in memory, for what reads and plans changes of a file tree (`p2pd.app.runtimes.draft.Files`)."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from p2pd.app.runtimes.draft import Plan

__all__ = ["MemoryFiles"]


class MemoryFiles:
    """`files` are contents by path; `dirs` are directories that are there besides those of the files."""

    def __init__(self, files: Mapping[str, str] = {}, dirs: tuple[str, ...] = ()) -> None:
        self.files = {path: text.encode() for path, text in files.items()}
        self.dirs = {"/", *(each for path in files for each in _above(path))}
        self.dirs |= {each for path in dirs for each in (path, *_above(path))}

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    def entries(self, path: str) -> list[str] | None:
        if path not in self.dirs:
            return None
        paths = [*self.files, *self.dirs]
        return sorted({posixpath.basename(each) for each in paths if posixpath.dirname(each) == path} - {""})

    def apply(self, plan: Plan) -> MemoryFiles:
        """The tree after a plan; what a plan says of the tree before is checked."""
        assert not plan.refusals
        after = MemoryFiles()
        after.files, after.dirs = dict(self.files), set(self.dirs)
        for change in plan.changes:
            assert change.before == self.files.get(change.path)
            if change.after is None:
                del after.files[change.path]
            else:
                after.files[change.path] = change.after
                after.dirs |= set(_above(change.path))
        for path in plan.removed_dirs:
            assert after.entries(path) == [], path
            after.dirs.remove(path)
        return after

    def text(self, path: str) -> str:
        return self.files[path].decode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemoryFiles) and (self.files, self.dirs) == (other.files, other.dirs)

    __hash__ = None  # type: ignore[assignment] # it changes


def _above(path: str) -> list[str]:
    found = []
    while path != "/":
        path = posixpath.dirname(path)
        found.append(path)
    return found
