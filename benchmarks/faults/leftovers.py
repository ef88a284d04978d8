"""What a daemon has that it should not: files that nothing owns, memory, descriptors, wrong bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from benchmarks.testbed import Node, Process

__all__ = ["descriptors", "leftovers", "store_of", "wrong_held"]

_MIB = 1 << 20
_STAGED = 12
"""Segments that a node keeps loaded for peers for a minute (p2pd.app.shelf)."""

_MOST_DESCRIPTORS = 300
_MOST_RSS = 300 * _MIB


def store_of(node: Node) -> Path:
    """The store of a node's p2pd, as this process sees it."""
    return node.files / "p2pd" / "store"


def descriptors(process: Process) -> int:
    """Open files and sockets; raises ProcessLookupError once it has ended."""
    try:
        return len(os.listdir(f"/proc/{process.pid}/fd"))
    except FileNotFoundError as error:
        raise ProcessLookupError(f"{process.name} has ended") from error


def leftovers(store: Path, process: Process) -> list[str]:
    """A line for each thing that a daemon which rests should not have; it must run."""
    found = []
    for place, most in (("scratch", 0), ("staging", _STAGED)):
        names = [path.name for path in (store / place).iterdir()]
        if len(names) > most:
            found.append(f"{len(names)} files in {place}/")
    # What was assembled before a fault stays for the next try; once the blob is held it has no use.
    held = {path.name for path in (store / "blobs" / "sha256").glob("*/*")}
    useless = [path.name for path in (store / "partial").iterdir() if path.name.split(".")[0] in held]
    if useless:
        found.append(f"{len(useless)} files of held blobs in partial/")
    count = descriptors(process)
    if count > _MOST_DESCRIPTORS:
        found.append(f"{count} open file descriptors")
    peak = process.usage().peak_rss
    if peak > _MOST_RSS:
        found.append(f"{peak >> 20} MiB of memory at the most")
    return found


def wrong_held(store: Path) -> int:
    """Files under the name of a digest that they do not have."""
    wrong = 0
    for path in (store / "blobs" / "sha256").glob("*/*"):
        if not path.suffix:
            segments = sorted(path.iterdir(), key=lambda file: int(file.name)) if path.is_dir() else [path]
            sha256 = hashlib.sha256()
            for segment in segments:
                sha256.update(segment.read_bytes())
            wrong += sha256.hexdigest() != path.name
    return wrong
