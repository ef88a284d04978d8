"""Content on disk: blobs by digest, transfers in assembly, staged segments, tag answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from p2pd.model.content import Descriptor
from p2pd.model.errors import P2pdError
from p2pd.model.layout import SegmentMeta
from p2pd.model.listing import ListingKey
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.model.stock import DiskSpace, Leftover, Stock

__all__ = ["Hasher", "HeldBlob", "ListingRecord", "MakeRoom", "Partial", "Store", "TagRecord"]

MakeRoom = Callable[[], Awaitable[bool]]
"""Called when a write found no room; true when some was made, and the write is worth another try."""


class Hasher(Protocol):
    """A sha256 on its way, as hashlib makes them."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class TagRecord:
    """What a tag pointed at, and when that was last confirmed (seconds since the epoch)."""

    descriptor: Descriptor
    confirmed_at: float


@dataclass(frozen=True, slots=True)
class ListingRecord:
    """A list as upstream gave it, and when (seconds since the epoch)."""

    body: bytes
    confirmed_at: float


class HeldBlob(Protocol):
    """A whole, verified blob. Satisfies `p2pd.ports.content.Blob`."""

    @property
    def size(self) -> int: ...

    def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Yield bytes [start, stop), each piece checked against its stored checksum before it leaves.

        A piece that fails the check drops the blob from the store and raises StoreError.
        """
        ...


class Partial(Protocol):
    """One blob being assembled in order: one writer, any number of readers.

    What is on disk survives a restart of the daemon and is hashed again when it is resumed.
    """

    @property
    def digest(self) -> Digest: ...

    @property
    def size(self) -> int: ...

    @property
    def frontier(self) -> int:
        """Bytes assembled and hashed so far: [0, frontier)."""
        ...

    async def resume(self) -> bool:
        """Hash again a little of what an earlier run left, for readers to have; False when that is all."""
        ...

    async def append(self, data: bytes) -> None:
        """Write and hash the next bytes; raises WrongContent past `size`, StoreError, StoreFull."""
        ...

    async def append_segment(self, staged: Path, meta: SegmentMeta, pieces: int | None = None) -> None:
        """Take the rest of a staged segment that `frontier` lies in, reusing its piece hashes.

        Its file may be the blob's from then on, under a second name: what was in it stays as it is.
        `pieces`: how many it has from its start on, where it is not whole yet; beyond these it is not read.
        """
        ...

    def hash_so_far(self) -> Hasher:
        """The sha256 of [0, frontier), to go on with elsewhere; this assembly's own is not touched."""
        ...

    def segment_meta(self, index: int) -> SegmentMeta | None:
        """Piece hashes of a segment that lies wholly below the frontier."""
        ...

    async def commit(self) -> None:
        """Check the whole sha256, make it durable, count it as held, and let readers have the tail.

        Raises WrongContent (the partial is then dropped and readers get the error).
        """
        ...

    def hold_back(self, on: bool) -> None:
        """While on, readers get no byte that they could not read before; a commit ends it, too."""
        ...

    def fail(self, error: P2pdError) -> None:
        """End all readers with `error`; what is on disk stays for the next attempt."""
        ...

    def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Yield bytes [start, stop) as they come; the piece with the last byte only after `commit`."""
        ...

    async def aclose(self) -> None:
        """Release the file; the writer calls it last. Readers that are still on it go on reading.

        After a `fail` with WrongContent nothing is resumed from it.
        """
        ...


class Store(Protocol):
    """Content-addressed files. A blob is held only once its sha256 was checked and made durable."""

    def size_of(self, digest: Digest) -> int | None:
        """Size of a held blob, None when it is not held. From memory: never touches the disk."""
        ...

    async def look(self, digest: Digest, within: float, largest: int | None = None) -> int | None:
        """As `size_of`, but looks also for what the container runtime holds; then it is held here, too.

        Waits `within` seconds for it to be checked. `largest`: do not begin with a larger one.
        """
        ...

    async def has_twin(self, digest: Digest, within: float) -> bool:
        """Whether the container runtime holds this held blob too, found right within `within` seconds.

        Without the copy here it is held all the same, and read from there.
        """
        ...

    def held(self) -> Iterator[tuple[Digest, int]]:
        """Every held digest with its size."""
        ...

    async def open(self, digest: Digest, *, is_use: bool = True) -> HeldBlob | None:
        """A held blob for reading; None (and no longer held) when its file is gone or has another size.

        `is_use`: whether that keeps it from growing old.
        """
        ...

    async def read(self, digest: Digest, *, is_use: bool = True) -> bytes | None:
        """A held blob of at most MANIFEST_LIMIT bytes, its sha256 checked; dropped and None when wrong.

        `is_use`: as of `open`.
        """
        ...

    async def write(self, digest: Digest, body: bytes) -> None:
        """Hold a small blob; raises WrongContent where `body` is not `digest`."""
        ...

    async def begin(self, digest: Digest, size: int, *, resume: bool = True) -> Partial:
        """Start or resume the assembly of a blob. One Partial a digest at a time (the caller's duty).

        Resuming takes seconds a GiB: without `resume` the caller does it, by `Partial.resume`, first of all.
        """
        ...

    def staged_path(self, digest: Digest, index: int) -> Path:
        """Where the swarm engine keeps the file of one segment; the directory exists."""
        ...

    async def own_staged(self, digest: Digest, index: int) -> Path:
        """The same, once the file that may be there is no blob's any more: to be written to."""
        ...

    async def staged(self, digest: Digest) -> frozenset[int]:
        """Segments that have a file at their `staged_path`, left by an earlier run perhaps."""
        ...

    async def segment_meta(self, digest: Digest, index: int) -> SegmentMeta | None:
        """Piece hashes of one segment of a held blob."""
        ...

    async def stage(self, digest: Digest, index: int) -> Path | None:
        """Put one segment of a held or partly assembled blob at `staged_path`; None when not there.

        The file may be the blob's own: it is only to be read.
        """
        ...

    async def unstage(self, digest: Digest, index: int) -> None:
        """Delete a staged segment, if it is there."""
        ...

    async def drop(self, digest: Digest) -> None:
        """Hold this blob no longer."""
        ...

    async def tag(self, repository: Repository, tag: Tag) -> TagRecord | None:
        """The last answer kept for a tag."""
        ...

    async def all_tags(self) -> list[tuple[Repository, Tag, TagRecord]]:
        """Every answer kept, in no order; unreadable ones are left out."""
        ...

    async def put_tag(self, repository: Repository, tag: Tag, record: TagRecord) -> None:
        """Keep an answer, durably."""
        ...

    async def listing(self, key: ListingKey) -> ListingRecord | None:
        """The last answer kept for a list."""
        ...

    async def put_listing(self, key: ListingKey, record: ListingRecord) -> None:
        """Keep an answer of at most LISTING_LIMIT bytes, durably; the oldest ones make room for it."""
        ...

    # Room

    def stock(self) -> Stock:
        """Everything held with its age, and what is under way. From memory.

        Opening, reading and staging a blob is use; its time survives a restart, to an hour.
        """
        ...

    async def leftovers(self) -> list[Leftover]:
        """Files that no assembly of this run works on; staged ones may be loaded in the swarm engine."""
        ...

    async def remove(self, leftover: Leftover) -> None:
        """Delete a leftover, unless a transfer has taken it up by now."""
        ...

    async def space(self) -> DiskSpace:
        """The file system that the store is on."""
        ...

    async def trim_tags(self, keep: int, max_age: float) -> int:
        """Forget answers about tags not confirmed for `max_age` seconds, and all but the newest `keep`.

        Returns how many were forgotten.
        """
        ...

    def on_full(self, make_room: MakeRoom) -> None:
        """Have this called when a write finds no room; where it says so the write is tried once more."""
        ...
