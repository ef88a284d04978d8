"""Answers about tags, one small JSON file each.

{"repository": "docker.io/library/alpine", "tag": "3.20", "digest": "sha256:…", "size": 1853,
 "media_type": "…", "confirmed_at": 1732400000.0}
"""

from __future__ import annotations

import contextlib
import heapq
import json
import math
import os
import time
from pathlib import Path

from p2pd.io.files import Files, ensure_dir, replace_file
from p2pd.io.places import Places
from p2pd.model.content import Descriptor, is_media_type
from p2pd.model.errors import InvalidReference
from p2pd.model.json_text import json_object
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.store import TagRecord

__all__ = ["decode_record", "encode_record", "read_all", "read_record", "trim_tags", "write_record"]

_FILE_LIMIT = 64 * 1024


def encode_record(repository: Repository, tag: Tag, record: TagRecord) -> bytes:
    descriptor = record.descriptor
    document = {
        "repository": str(repository),
        "tag": tag.name,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        "media_type": descriptor.media_type,
        "confirmed_at": float(record.confirmed_at),
    }
    return json.dumps(document).encode()


def decode_record(data: bytes, repository: Repository, tag: Tag) -> TagRecord | None:
    """Read a record; None where it is malformed or about another tag."""
    document = json_object(data)
    if document.get("repository") != str(repository) or document.get("tag") != tag.name:
        return None
    digest, size, media_type, at = (document.get(k) for k in ("digest", "size", "media_type", "confirmed_at"))
    if not isinstance(digest, str) or not isinstance(media_type, str):
        return None
    if not is_media_type(media_type):
        return None
    if type(size) is not int or not 0 <= size < 1 << 53 or not isinstance(at, float) or not math.isfinite(at):
        return None
    try:
        return TagRecord(Descriptor(Digest.parse(digest), size, media_type), at)
    except InvalidReference:
        return None


def read_record(
    places: Places, files: Files, repository: Repository, tag: Tag
) -> tuple[TagRecord | None, bool]:
    """The record kept for a tag, and whether there was a corrupt one, now removed. Blocks; OSError."""
    path = places.tag(repository, tag)
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT)
    except FileNotFoundError:
        return None, False
    record = decode_record(data, repository, tag)
    if record is None:
        files.unlink(path)
    return record, record is None


def read_all(places: Places) -> list[tuple[Repository, Tag, TagRecord]]:
    """Every record that is right, and in the place of its own tag. Blocks; OSError."""
    found = []
    for path in places.tags.glob("*/*/*.json"):
        try:
            with path.open("rb") as file:
                data = file.read(_FILE_LIMIT)
        except FileNotFoundError:
            continue
        subject = _subject(data)
        record = decode_record(data, *subject) if subject is not None else None
        if subject is not None and record is not None and places.tag(*subject) == path:
            found.append((*subject, record))
    return found


def _subject(data: bytes) -> tuple[Repository, Tag] | None:
    """What tag a record says it is about."""
    document = json_object(data)
    repository, tag = document.get("repository"), document.get("tag")
    if not isinstance(repository, str) or not isinstance(tag, str):
        return None
    registry, _, name = repository.partition("/")
    try:
        return Repository.parse(registry, name), Tag.parse(tag)
    except InvalidReference:
        return None


def write_record(places: Places, files: Files, repository: Repository, tag: Tag, record: TagRecord) -> None:
    """Keep a record durably. Blocks; OSError."""
    path = places.tag(repository, tag)
    ensure_dir(files, path.parent)
    replace_file(files, places.new_scratch(), path, encode_record(repository, tag, record))


def trim_tags(places: Places, files: Files, keep: int, max_age: float) -> int:
    """Delete answers older than `max_age` seconds (0: none for that), and all but the newest `keep`.

    Blocks; OSError.
    """
    now = time.time()
    known: list[tuple[float, str]] = []
    for folder, _, names in os.walk(places.tags):
        for name in names:
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):
                known.append((os.stat(path).st_mtime, path))
    old = {path for at, path in known if max_age and now - at > max_age}
    old.update(path for _, path in heapq.nsmallest(len(known) - keep, known) if len(known) > keep)
    for path in old:
        files.unlink(Path(path))
    return len(old)
