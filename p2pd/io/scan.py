"""What a store directory holds when the daemon starts, and tidying it. Blocks; raises OSError."""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from p2pd.io.files import Files, ensure_dir, open_readonly, read_sound
from p2pd.io.pieces import PieceTable
from p2pd.io.places import SIDECAR_SUFFIX, Places
from p2pd.io.segment_files import length_of_segments, remove_blob
from p2pd.model.errors import InvalidReference
from p2pd.model.layout import SMALL_BLOB
from p2pd.model.reference import Digest

__all__ = ["Found", "Index", "load_table", "make_ready", "scan"]

_SHARD = re.compile("[0-9a-f]{2}")
_STAGED_AGE = 24 * 3600.0

log = structlog.get_logger()


def make_ready(places: Places, files: Files) -> None:
    """Make the directories of a new store."""
    for path in (places.partials, places.staging, places.tags, places.scratch, places.blobs):
        ensure_dir(files, path)


@dataclass(frozen=True, slots=True)
class Found:
    """A held blob: its size in bytes and when it was last used, in epoch seconds, to an hour."""

    size: int
    used_at: float


Index = dict[Digest, Found]


def scan(places: Places, files: Files) -> Index:
    """The held blobs. Leftovers of an earlier run are removed on the way."""
    index: Index = {}
    for shard in places.blobs.iterdir():
        if _SHARD.fullmatch(shard.name) and shard.is_dir():
            _scan_shard(shard, places, files, index)
    for path in places.scratch.iterdir():
        _remove(files, path, places)
    for path in places.partials.iterdir():
        if _held_digest(path.name, index) is not None:
            _remove(files, path, places)
    stale = time.time() - _STAGED_AGE
    for path in places.staging.iterdir():
        if _held_digest(path.name, index) is not None or path.stat().st_mtime < stale:
            _remove(files, path, places)
    return index


def load_table(places: Places, digest: Digest, size: int) -> PieceTable | None:
    """The sidecar of a held blob; None where it is missing or no good."""
    try:
        table = _read_table(places, digest, PieceTable.encoded_size(size))
    except FileNotFoundError:
        return None
    return table if table is not None and table.size == size else None


def _read_table(places: Places, digest: Digest, length: int) -> PieceTable | None:
    return PieceTable.decode(read_sound(open_readonly(places.sidecar(digest)), 0, length))


def _scan_shard(shard: Path, places: Places, files: Files, index: Index) -> None:
    sidecars: Index = {}
    found: Index = {}
    with os.scandir(shard) as entries:
        for entry in entries:
            name = entry.name.removesuffix(SIDECAR_SUFFIX)
            if (digest := _digest(name)) is None or not name.startswith(shard.name):
                continue
            known = entry.stat()
            if name == entry.name and entry.is_dir():
                found[digest] = Found(length_of_segments(entry.path), known.st_mtime)
            elif entry.is_file():
                here = found if name == entry.name else sidecars
                here[digest] = Found(known.st_size, known.st_mtime)
    for digest, blob in found.items():
        size = blob.size
        sidecar = sidecars.pop(digest, None)
        length = None if sidecar is None else sidecar.size
        # A small blob has no sidecar, so one that has is the rest of a large one.
        fits = size > SMALL_BLOB and length == PieceTable.encoded_size(size)
        if length is not None and not fits:
            # Either of the two is wrong. The sidecar has a checksum, so it can say which.
            table = _read_table(places, digest, length)
            _remove(files, places.sidecar(digest), places)
            if table is not None:
                log.error("blob.lost", digest=str(digest), bytes=size, reason="wrong size")
                _remove(files, places.blob(digest), places)
                continue
        index[digest] = blob
    for digest in sidecars:
        _remove(files, places.sidecar(digest), places)


def _digest(name: str) -> Digest | None:
    try:
        return Digest.from_hex(name)
    except InvalidReference:
        return None


def _held_digest(name: str, index: Index) -> Digest | None:
    digest = _digest(name.partition(".")[0])
    return digest if digest in index else None


def _remove(files: Files, path: Path, places: Places) -> None:
    """Remove one leftover. Where that is not possible the next start tries again."""
    with contextlib.suppress(OSError):
        remove_blob(files, path, places.new_scratch())
