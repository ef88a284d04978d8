"""Where the store keeps what. Pure path arithmetic.

blobs/sha256/<2 hex>/<64 hex>           a held blob, as it is
blobs/sha256/<2 hex>/<64 hex>.pieces    its sidecar (p2pd.io.pieces)
partial/<64 hex>.<size>                 a blob in assembly; its length says how far it may be
partial/<64 hex>.<size>.pieces          checksums of its whole pieces, appended as they come
staging/<64 hex>.<segment>              files that the swarm engine works on
tags/<registry>/<repository>/<tag>.json answers about tags
listings/<64 hex>                       answers about lists of tags and referrers
vouched/<64 hex>                        what is known of a file in containerd's store (p2pd.io.runtime)
scratch/<n>                             files on their way to another place; emptied at start
lock                                    held by the daemon that uses all this
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from urllib.parse import quote

from p2pd.model.listing import ListingKey
from p2pd.model.reference import Digest, Repository, Tag

__all__ = ["SIDECAR_SUFFIX", "Places"]

SIDECAR_SUFFIX = ".pieces"

_NAME_LIMIT = 200


class Places:
    """Paths under one store directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self.partials = root / "partial"
        self.staging = root / "staging"
        self.tags = root / "tags"
        self.listings = root / "listings"
        self.vouched_marks = root / "vouched"
        self.scratch = root / "scratch"
        self.lock = root / "lock"
        self._scratch_names = itertools.count()

    def blob(self, digest: Digest) -> Path:
        return self.blobs / digest.hex[:2] / digest.hex

    def sidecar(self, digest: Digest) -> Path:
        return self.blobs / digest.hex[:2] / (digest.hex + SIDECAR_SUFFIX)

    def partial(self, digest: Digest, size: int) -> Path:
        return self.partials / f"{digest.hex}.{size}"

    def journal(self, digest: Digest, size: int) -> Path:
        return self.partials / f"{digest.hex}.{size}{SIDECAR_SUFFIX}"

    def staged(self, digest: Digest, index: int) -> Path:
        return self.staging / f"{digest.hex}.{index}"

    def staged_segments(self, digest: Digest) -> frozenset[int]:
        """Segments of a blob that have a staged file. Blocks."""
        endings = (path.name.partition(".")[2] for path in self.staging.glob(f"{digest.hex}.*"))
        return frozenset(int(ending) for ending in endings if ending.isdecimal())

    def vouched(self, digest: Digest) -> Path:
        return self.vouched_marks / digest.hex

    def tag(self, repository: Repository, tag: Tag) -> Path:
        folder = self.tags / _escaped(repository.registry) / _escaped(repository.name)
        return folder / (_escaped(tag.name) + ".json")

    def listing(self, key: ListingKey) -> Path:
        return self.listings / hashlib.sha256(str(key).encode()).hexdigest()

    def new_scratch(self) -> Path:
        """A scratch path that nobody else was given."""
        return self.scratch / str(next(self._scratch_names))


def _escaped(name: str) -> str:
    """A name as one path component: no slash, no leading dot, not too long for a file system."""
    escaped = quote(name, safe="")
    if escaped.startswith("."):
        escaped = "%2E" + escaped[1:]
    if len(escaped) <= _NAME_LIMIT:
        return escaped
    # "~" is in no name of the distribution grammar, so a shortened name meets no whole one.
    return f"{escaped[: _NAME_LIMIT // 2]}~{hashlib.sha256(name.encode()).hexdigest()[:32]}"
