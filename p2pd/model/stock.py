"""What a store holds, as those see it who decide what may go."""

from __future__ import annotations

from dataclasses import dataclass

from p2pd.model.reference import Digest

__all__ = ["DiskSpace", "Leftover", "Limits", "Portion", "Stock", "Stored"]


@dataclass(frozen=True, slots=True)
class Portion:
    """A number of bytes, or a share of a file system in percent; the larger of the two where both are set."""

    byte_count: int = 0
    percent: float = 0.0

    def of(self, total: int) -> int:
        """Bytes, on a file system of `total` bytes."""
        return max(self.byte_count, int(total * self.percent / 100))


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a store may hold. 0 is no limit.

    `max_bytes`: content, held and in assembly. `min_free`: what others find free on its file system.
    `max_age`: seconds without use after which content goes.
    """

    max_bytes: int = 0
    min_free: Portion = Portion()
    max_age: float = 0.0


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Bytes of the store's file system; `free` is what a process without privilege may still write."""

    free: int
    total: int


@dataclass(frozen=True, slots=True)
class Stored:
    """One held blob. `idle`: seconds since its last use. `in_use`: somebody is reading it."""

    digest: Digest
    size: int
    idle: float
    in_use: bool = False


@dataclass(frozen=True, slots=True)
class Stock:
    """All held blobs. `assembling`: the sizes of blobs under way; `pending`: what they lack on disk."""

    held: tuple[Stored, ...]
    assembling: int = 0
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that no transfer works on: of an assembly (`segment` None), or a staged segment.

    `size` is what it takes on disk, `idle` the seconds since it was last written.
    """

    name: str
    digest: Digest
    segment: int | None
    size: int
    idle: float
