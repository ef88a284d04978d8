"""Checksums of a blob's pieces: hashed as bytes come, kept in a sidecar file beside the blob.

SHA-1 is what the LAN swarm needs, xxh3 is what finds a rotten piece on disk before it leaves.
Both are derived data: the blob's sha256 decides. Sidecar, big-endian: magic (8 bytes), blob size
(u64), piece length (u32), all SHA-1 (20 bytes each), all xxh3-64 (8 bytes each), xxh3-64 of
everything before.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import xxhash

from p2pd.model.layout import SHA1_BYTES, Layout, SegmentMeta
from p2pd.model.reference import Digest
from p2pd.ports.store import Hasher

__all__ = ["ENTRY_BYTES", "XXH3_BYTES", "PieceHasher", "PieceTable", "entry_of"]

XXH3_BYTES = 8
ENTRY_BYTES = SHA1_BYTES + XXH3_BYTES

_MAGIC = b"p2pdpcs1"
_HEADER = struct.Struct(">8sQI")


def entry_of(piece: bytes) -> bytes:
    """SHA-1 and xxh3 of one piece, `ENTRY_BYTES` together."""
    return hashlib.sha1(piece, usedforsecurity=False).digest() + xxhash.xxh3_64_digest(piece)


@dataclass(frozen=True, slots=True)
class PieceTable:
    """Checksums of all pieces of a blob of `size` bytes, in order, concatenated."""

    size: int
    sha1s: bytes
    xxh3s: bytes

    def matches(self, piece: int, data: bytes) -> bool:
        """Whether `data` is the whole of piece number `piece` of the blob, unharmed."""
        at = piece * XXH3_BYTES
        return xxhash.xxh3_64_digest(data) == self.xxh3s[at : at + XXH3_BYTES]

    def segment_meta(self, digest: Digest, index: int) -> SegmentMeta | None:
        """What the swarm needs of segment `index`; None where the blob has no such segment."""
        layout = Layout(self.size)
        if not 0 <= index < layout.segment_count:
            return None
        return SegmentMeta(digest, self.size, index, _segment_hashes(layout, self.sha1s, index))

    def encode(self) -> bytes:
        header = _HEADER.pack(_MAGIC, self.size, Layout(self.size).piece_length)
        body = header + self.sha1s + self.xxh3s
        return body + xxhash.xxh3_64_digest(body)

    @classmethod
    def encoded_size(cls, size: int) -> int:
        return _HEADER.size + Layout(size).stripe_count * ENTRY_BYTES + XXH3_BYTES

    @classmethod
    def decode(cls, data: bytes) -> PieceTable | None:
        """Read a sidecar; None where it is torn, rotten or of another version or cut."""
        if len(data) < _HEADER.size or xxhash.xxh3_64_digest(data[:-XXH3_BYTES]) != data[-XXH3_BYTES:]:
            return None
        magic, size, piece_length = _HEADER.unpack_from(data)
        if (
            magic != _MAGIC
            or piece_length != Layout(size).piece_length
            or len(data) != cls.encoded_size(size)
        ):
            return None
        split = _HEADER.size + Layout(size).stripe_count * SHA1_BYTES
        return cls(size, data[_HEADER.size : split], data[split:-XXH3_BYTES])


class PieceHasher:
    """sha256 of a blob, and the checksums of its pieces, as its bytes come in order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.position = 0
        self._layout = Layout(size)
        self._sha256 = hashlib.sha256()
        self._sha1s = bytearray()
        self._xxh3s = bytearray()
        self._start_piece()

    @property
    def piece_count(self) -> int:
        """Pieces hashed whole."""
        return len(self._xxh3s) // XXH3_BYTES

    @property
    def piece_left(self) -> int:
        """Bytes up to the end of the piece that `position` is in."""
        length = self._layout.piece_length
        return min(length - self.position % length, self.size - self.position)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def copy_sha256(self) -> Hasher:
        """The sha256 of what has come, to go on with."""
        return self._sha256.copy()

    def update(self, data: bytes | memoryview, sha1s: bytes = b"") -> None:
        """Hash the next bytes, which must not go past `size`.

        Where the SHA-1 of the pieces that `data` is of are known, hand those in and save the work.
        """
        view = memoryview(data)
        at = 0
        while view:
            part = view[: self.piece_left]
            self._sha256.update(part)
            self._xxh3.update(part)
            sha1 = sha1s[at : at + SHA1_BYTES]
            if not sha1:
                self._sha1.update(part)
            if len(part) == self.piece_left:
                self._sha1s += sha1 or self._sha1.digest()
                self._xxh3s += self._xxh3.digest()
                self._start_piece()
                at += SHA1_BYTES
            self.position += len(part)
            view = view[len(part) :]

    def entries(self, first: int) -> bytes:
        """`ENTRY_BYTES` for each piece hashed whole, from number `first` on."""
        return b"".join(
            self._sha1s[i * SHA1_BYTES : (i + 1) * SHA1_BYTES]
            + self._xxh3s[i * XXH3_BYTES : (i + 1) * XXH3_BYTES]
            for i in range(first, self.piece_count)
        )

    def segment_hashes(self, index: int) -> bytes:
        """SHA-1 of the pieces of one segment, as far as they are hashed."""
        return _segment_hashes(self._layout, self._sha1s, index)

    def table(self) -> PieceTable:
        """The checksums, once everything is hashed."""
        return PieceTable(self.size, bytes(self._sha1s), bytes(self._xxh3s))

    def _start_piece(self) -> None:
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._xxh3 = xxhash.xxh3_64()


def _segment_hashes(layout: Layout, sha1s: bytes | bytearray, index: int) -> bytes:
    stripes = layout.stripes_of(index)
    return bytes(sha1s[stripes.start * SHA1_BYTES : stripes.stop * SHA1_BYTES])
