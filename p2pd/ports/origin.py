"""The world behind the WAN: origin registries, and seeders that stand for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from p2pd.model.content import Descriptor, Holding, Manifest
from p2pd.model.layout import SegmentMeta
from p2pd.model.reference import Digest, Repository, Tag

__all__ = ["BlobStream", "Origin", "SeederOrigin", "SegmentAnswer"]


@dataclass(slots=True)
class BlobStream:
    """Bytes [start, stop) of a blob of `size` bytes, arriving.

    `chunks` yields non-empty chunks in order and ends exactly at `stop`; an early end of the
    connection is raised as Unavailable. `start` may be lower than asked for when the server
    does not honour ranges: the caller skips what it has. `holding`: what the server, a seeder, said
    when it began, if anything.
    """

    size: int
    start: int
    stop: int
    chunks: AsyncIterator[bytes]
    holding: Holding | None = None


@dataclass(frozen=True, slots=True)
class SegmentAnswer:
    """What a seeder said of a segment: no `meta` while it lacks bytes of it."""

    meta: SegmentMeta | None
    holding: Holding | None = None


class Origin(Protocol):
    """Read side of registries over the WAN. Raises OriginFault subclasses only."""

    async def resolve(self, repository: Repository, tag: Tag) -> Descriptor:
        """Digest, size and media type a tag points at now (HEAD; GET where HEAD is refused).

        A seeder that cannot ask the origin answers by raising StaleTag.
        """
        ...

    async def manifest(self, repository: Repository, reference: Digest | Tag) -> Manifest:
        """Fetch and verify one manifest, at most MANIFEST_LIMIT bytes."""
        ...

    async def blob_size(self, repository: Repository, digest: Digest) -> int:
        """Size of a blob in bytes."""
        ...

    def open_blob(
        self, repository: Repository, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[BlobStream]:
        """Begin to read bytes [start, stop) of a blob (to its end when stop is None).

        Entering the context ends when headers are there. A stall of the body longer than the
        adapter's read time-out is raised as Unavailable from `chunks`.
        """
        ...

    async def tags(self, repository: Repository, query: str) -> bytes:
        """The JSON body of tags/list, at most MANIFEST_LIMIT bytes, checked to be an object with `tags`.

        All of them, however the server pages; or the `n` asked for, where it pages by the last name.

        A seeder that cannot ask the origin answers this and `referrers` by raising StaleListing.
        """
        ...

    async def referrers(self, repository: Repository, digest: Digest) -> bytes:
        """The unfiltered referrers index (empty when the origin has none, or no such API and no tag)."""
        ...


class SeederOrigin(Origin, Protocol):
    """A seeder: an origin that also hands out swarm metadata."""

    async def segment(
        self, repository: Repository, digest: Digest, size: int, index: int, *, is_patient: bool = True
    ) -> SegmentAnswer:
        """Piece hashes of one segment; waits for them where it `is_patient`, though not for ever.

        A seeder from before this was told waits in any case, and is then Unavailable.
        """
        ...
