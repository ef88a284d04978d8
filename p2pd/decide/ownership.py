"""Who fetches what over the WAN: rendezvous hashing (Thaler & Ravishankar, 1998).

Every node that knows the same members ranks them alike, without a leader or a message; a member
that leaves moves only what it owned.
"""

from __future__ import annotations

from collections.abc import Iterable

import xxhash

from p2pd.model.reference import Digest

__all__ = ["object_key", "owner", "ranked", "stripe_key"]


def stripe_key(digest: Digest, stripe: int) -> bytes:
    """Key of one stripe of a blob."""
    return digest.raw + stripe.to_bytes(4, "big")


def object_key(text: str) -> bytes:
    """Key of anything with a name: a small blob, a tag, a segment's metadata."""
    return text.encode()


def ranked(key: bytes, members: Iterable[str]) -> list[str]:
    """Members from the highest xxh3(key, member) to the lowest; ties by name."""
    return sorted(members, key=lambda member: (_score(key, member), member), reverse=True)


def owner(key: bytes, members: Iterable[str]) -> str | None:
    """The first of `ranked`, in one pass; None where there are no members."""
    return max(members, key=lambda member: (_score(key, member), member), default=None)


def _score(key: bytes, member: str) -> int:
    return xxhash.xxh3_64_intdigest(key + member.encode())
