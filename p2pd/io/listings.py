"""Lists that registries gave, one small file each: a line of JSON that says which, then the list as it came.

{"repository": "docker.io/library/alpine", "kind": "tags", "argument": "", "confirmed_at": 1732400000.0}
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path

from p2pd.io.files import Files, ensure_dir, replace_file
from p2pd.io.places import Places
from p2pd.model.json_text import json_object
from p2pd.model.listing import LISTING_LIMIT, ListingKey, is_listing
from p2pd.ports.store import ListingRecord

__all__ = ["decode_listing", "encode_listing", "read_listing", "write_listing"]

KEPT = 1000
KEPT_BYTES = 16 * 1024 * 1024

_FILE_LIMIT = LISTING_LIMIT + 4096


def encode_listing(key: ListingKey, record: ListingRecord) -> bytes:
    head = {
        "repository": str(key.repository),
        "kind": key.kind.value,
        "argument": key.argument,
        "confirmed_at": float(record.confirmed_at),
    }
    return json.dumps(head).encode() + b"\n" + record.body


def decode_listing(data: bytes, key: ListingKey) -> ListingRecord | None:
    """Read a record; None where it is malformed, too large or about something else."""
    line, _, body = data.partition(b"\n")
    head = json_object(line)
    about = (head.get("repository"), head.get("kind"), head.get("argument"))
    at = head.get("confirmed_at")
    if about != (str(key.repository), key.kind.value, key.argument):
        return None
    if not isinstance(at, float) or not math.isfinite(at):
        return None
    return ListingRecord(body, at) if len(body) <= LISTING_LIMIT and is_listing(key.kind, body) else None


def read_listing(places: Places, files: Files, key: ListingKey) -> tuple[ListingRecord | None, bool]:
    """What is remembered, and whether it was corrupt and is now removed. Blocks; OSError."""
    path = places.listing(key)
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT)
    except FileNotFoundError:
        return None, False
    record = decode_listing(data, key)
    if record is None:
        files.unlink(path)
    return record, record is None


def write_listing(places: Places, files: Files, key: ListingKey, record: ListingRecord) -> None:
    """Keep a record durably; the oldest ones make room for it. Blocks; OSError."""
    ensure_dir(files, places.listings)
    replace_file(files, places.new_scratch(), places.listing(key), encode_listing(key, record))
    _trim(places.listings, files)


def _trim(folder: Path, files: Files) -> None:
    known: list[tuple[float, int, Path]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat()
                known.append((status.st_mtime, status.st_size, Path(entry.path)))
    known.sort(reverse=True)
    total = 0
    for rank, (_, size, path) in enumerate(known):
        total += size
        if rank >= KEPT or total > KEPT_BYTES:
            files.unlink(path)
