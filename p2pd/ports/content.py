"""What a registry front end serves from.

The node's ladder and the seeder both implement `Content`; `p2pd.io.registry_app` turns either
into the OCI distribution API.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from p2pd.model.content import Manifest
from p2pd.model.listing import Listing
from p2pd.model.reference import Digest, Repository, Tag

__all__ = ["Blob", "Content"]


class Blob(Protocol):
    """A blob with a live source. Who streams it does not own the transfer: leaving early harms nobody."""

    @property
    def size(self) -> int:
        """Bytes of the whole blob."""
        ...

    def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes [start, stop) in order, waiting for those still arriving.

        The chunk that reaches the blob's last byte is yielded only after the whole sha256 was
        right. Raises P2pdError in mid-way when no source is left or the content proved wrong;
        the front end then ends the body short, never wrong.
        """
        ...


class Content(Protocol):
    """Read side of a registry. Every method raises P2pdError and ends within its own deadline."""

    async def manifest(self, repository: Repository, reference: Digest | Tag) -> Manifest:
        """The verified manifest, held in the store from now on."""
        ...

    async def blob(self, repository: Repository, digest: Digest) -> Blob:
        """The blob, as soon as a source for it is live (never before)."""
        ...

    async def tags(self, repository: Repository, query: str) -> Listing:
        """JSON of `tags/list`; `query` is the raw `n=…&last=…` (already checked) or empty."""
        ...

    async def referrers(self, repository: Repository, digest: Digest, artifact_type: str | None) -> Listing:
        """OCI index that lists the referrers of `digest` (empty index when there are none)."""
        ...
