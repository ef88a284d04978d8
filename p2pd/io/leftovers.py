"""What is in a store besides held blobs, for those who tidy it. Blocks; raises OSError."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from p2pd.io.files import Files
from p2pd.io.places import SIDECAR_SUFFIX, Places
from p2pd.io.segment_files import remove_blob
from p2pd.model.errors import InvalidReference
from p2pd.model.reference import Digest
from p2pd.model.stock import DiskSpace, Leftover

__all__ = ["disk_space", "find_leftovers", "remove_leftover"]


def disk_space(places: Places) -> DiskSpace:
    """Of the file system that the store is on."""
    known = os.statvfs(places.root)
    return DiskSpace(known.f_bavail * known.f_frsize, known.f_blocks * known.f_frsize)


def find_leftovers(places: Places, busy: Collection[Digest]) -> list[Leftover]:
    """Assemblies but those of `busy` digests, and all staged segments."""
    found = [
        Leftover(f"partial/{path.name}", digest, None, size, idle)
        for path, digest, _number, size, idle in _numbered(places.partials)
        if digest not in busy
    ]
    found += [
        Leftover(f"staging/{path.name}", digest, number, size, idle)
        for path, digest, number, size, idle in _numbered(places.staging)
    ]
    return found


def remove_leftover(places: Places, files: Files, leftover: Leftover) -> None:
    """Delete its files; they may be gone already."""
    path = places.root / leftover.name
    remove_blob(files, path, places.new_scratch())
    if leftover.segment is None:
        files.unlink(path.with_name(path.name + SIDECAR_SUFFIX))


def _numbered(folder: Path) -> Iterator[tuple[Path, Digest, int, int, float]]:
    """Those named `<64 hex>.<number>`: path, digest, number, bytes on disk, seconds since the last write."""
    now = time.time()
    for path in folder.iterdir():
        hex_, _, number = path.name.partition(".")
        if not number.isdecimal():
            continue
        with contextlib.suppress(InvalidReference, FileNotFoundError):
            digest, known = Digest.from_hex(hex_), [path.stat()]
            if path.is_dir():
                known += [entry.stat() for entry in os.scandir(path)]
            idle = max(0.0, now - max(file.st_mtime for file in known))
            # What has another name, too, is not given back before both are gone.
            size = sum(file.st_blocks * 512 // file.st_nlink for file in known)
            yield path, digest, int(number), size, idle
