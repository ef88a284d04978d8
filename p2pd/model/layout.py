"""How a blob is cut: pieces, and segments that are one torrent each.

A blob of at most `SMALL_BLOB` bytes is not cut: it travels whole. A larger one is a run of
segments of at most `SEGMENT` bytes, each a torrent whose metadata is a pure function of the
segment's bytes, so that the pieces of one segment are exchanged on the LAN while the next is
still arriving. A piece is the unit of swarm exchange and also of one WAN range request
(a stripe). The table is fixed: every node and seeder must cut alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from p2pd.model.reference import Digest

__all__ = [
    "FINGERPRINT_BYTES",
    "MANIFEST_LIMIT",
    "SEGMENT",
    "SMALL_BLOB",
    "Layout",
    "Segment",
    "SegmentMeta",
    "Stripe",
]

KIB = 1024
MIB = 1024 * KIB

MANIFEST_LIMIT = 4 * MIB
"""Largest manifest taken, bytes (OCI distribution-spec 1.1 asks registries for at least this)."""

SMALL_BLOB = MIB
"""Largest blob that skips the swarm, bytes."""

SEGMENT = 16 * MIB
"""Bytes of a torrent; measured best on a cold seeder (docs/architecture.md)."""

_SHORT_BLOB = 8 * MIB
_SHORT_PIECE = 256 * KIB
_PIECE = MIB

SHA1_BYTES = 20

FINGERPRINT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes [offset, offset + length) of a blob, cut in pieces of `piece_length` (the last one shorter)."""

    index: int
    offset: int
    length: int
    piece_length: int

    @property
    def stop(self) -> int:
        return self.offset + self.length

    @property
    def piece_count(self) -> int:
        return -(-self.length // self.piece_length)

    def piece_size(self, piece: int) -> int:
        """Bytes of piece number `piece` of this segment."""
        return min(self.piece_length, self.length - piece * self.piece_length)


@dataclass(frozen=True, slots=True)
class Stripe:
    """One WAN range: piece `piece` of segment `segment`, blob bytes [start, stop)."""

    index: int
    segment: int
    piece: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The cut of a blob of `size` bytes (> 0)."""

    size: int

    @property
    def is_small(self) -> bool:
        return self.size <= SMALL_BLOB

    @property
    def piece_length(self) -> int:
        return _SHORT_PIECE if self.size <= _SHORT_BLOB else _PIECE

    @property
    def segment_count(self) -> int:
        return -(-self.size // SEGMENT)

    @property
    def stripe_count(self) -> int:
        """Stripes of the whole blob. SEGMENT is a multiple of every piece length, so they tile it."""
        return -(-self.size // self.piece_length)

    @property
    def stripes_per_segment(self) -> int:
        return SEGMENT // self.piece_length

    def segment(self, index: int) -> Segment:
        offset = index * SEGMENT
        return Segment(index, offset, min(SEGMENT, self.size - offset), self.piece_length)

    def segments(self) -> Iterator[Segment]:
        return (self.segment(index) for index in range(self.segment_count))

    def stripe(self, index: int) -> Stripe:
        segment, piece = divmod(index, self.stripes_per_segment)
        start = index * self.piece_length
        return Stripe(index, segment, piece, start, min(start + self.piece_length, self.size))

    def stripes_of(self, segment: int) -> range:
        """Indexes of the stripes of one segment."""
        first = segment * self.stripes_per_segment
        return range(first, min(first + self.stripes_per_segment, self.stripe_count))


@dataclass(frozen=True, slots=True)
class SegmentMeta:
    """What a node needs to join one segment's swarm: the SHA-1 of each piece, concatenated.

    With the digest, the blob size and the index this fixes the torrent's info dictionary, so
    every holder makes the same info-hash (BEP 3). SHA-1 only finds bad pieces early; what is
    delivered is decided by the blob's sha256.
    """

    digest: Digest
    blob_size: int
    index: int
    piece_hashes: bytes

    @property
    def segment(self) -> Segment:
        return Layout(self.blob_size).segment(self.index)

    def piece_hash(self, piece: int) -> bytes:
        """SHA-1 of piece number `piece` of the segment."""
        return self.piece_hashes[piece * SHA1_BYTES : (piece + 1) * SHA1_BYTES]

    @property
    def fingerprint(self) -> bytes:
        """FINGERPRINT_BYTES that stand for the hashes: of sha256, whose half nobody can find a second
        preimage of."""
        return hashlib.sha256(self.piece_hashes).digest()[:FINGERPRINT_BYTES]

    @property
    def is_consistent(self) -> bool:
        """Whether the number of hashes fits the cut."""
        layout = Layout(self.blob_size)
        return (
            0 <= self.index < layout.segment_count
            and len(self.piece_hashes) == SHA1_BYTES * self.segment.piece_count
        )
