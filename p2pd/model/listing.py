"""Lists that registries make: the tags of a repository, the referrers of a manifest.

Source: OCI distribution-spec 1.1, "Listing Tags" and "Listing Referrers".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from p2pd.model.errors import Stale
from p2pd.model.json_text import json_object
from p2pd.model.reference import Digest, Repository

__all__ = [
    "LISTING_LIMIT",
    "Listing",
    "ListingKey",
    "ListingKind",
    "StaleListing",
    "is_listing",
    "referrers_of",
    "tags_of",
]

LISTING_LIMIT = 256 * 1024
"""Largest list that is remembered, bytes: it fits one message to a peer."""

_ARGUMENT_LIMIT = 512


class ListingKind(Enum):
    TAGS = "tags"
    REFERRERS = "referrers"


@dataclass(frozen=True, slots=True)
class ListingKey:
    """What was asked. `argument`: of tags the raw `n=…&last=…` or empty, of referrers the digest."""

    repository: Repository
    kind: ListingKind
    argument: str = ""

    @classmethod
    def tags(cls, repository: Repository, query: str) -> ListingKey:
        return cls(repository, ListingKind.TAGS, query)

    @classmethod
    def referrers(cls, repository: Repository, digest: Digest) -> ListingKey:
        return cls(repository, ListingKind.REFERRERS, str(digest))

    @property
    def is_plain(self) -> bool:
        """Whether it is fit for messages and files, wherever it came from."""
        text = self.argument
        return len(text) <= _ARGUMENT_LIMIT and text.isascii() and (not text or text.isprintable())

    def __str__(self) -> str:
        return f"{self.kind.value} of {self.repository} {self.argument}".rstrip()


@dataclass(frozen=True, slots=True)
class Listing:
    """The JSON body of an answer. `stale`: from memory, because nobody upstream could be asked."""

    body: bytes
    stale: bool = False


class StaleListing(Stale):
    """`body` is what a seeder remembers that could not ask the origin."""

    def __init__(self, message: str, body: bytes = b"") -> None:
        super().__init__(message)
        self.body = body


def tags_of(body: bytes) -> list[str] | None:
    """The tags of such a list; None where the body is none."""
    tags = json_object(body).get("tags", False)
    # Some registries say null where there is none.
    if tags is None:
        return []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        return None
    try:
        "".join(tags).encode()  # JSON can say half of a surrogate pair, of which no link can be made
    except UnicodeEncodeError:
        return None
    return tags


def referrers_of(body: bytes) -> list[object] | None:
    """The descriptors of such a list, as they came; None where the body is none."""
    manifests = json_object(body).get("manifests")
    return manifests if isinstance(manifests, list) else None


def is_listing(kind: ListingKind, body: bytes) -> bool:
    """Whether a body has the shape of such a list."""
    return (tags_of if kind is ListingKind.TAGS else referrers_of)(body) is not None
