"""Who fetches what over the WAN: rendezvous hashing (Thaler & Ravishankar, 1998).

Every node that knows the same members ranks them alike, without a leader or a message; a member
that leaves moves only what it owned.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from heapq import nlargest

import xxhash

from p2pd.model.reference import Digest

__all__ = ["Ranking", "first", "object_key", "owner", "ranked", "stripe_key"]


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


def first(key: bytes, members: Iterable[str], count: int) -> list[str]:
    """The first `count` of `ranked`, for many members."""
    return nlargest(count, members, key=lambda member: (_score(key, member), member))


class Ranking:
    """`ranked` for one key, kept while members come and go (a site may have a thousand)."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._entries: list[tuple[int, str]] = []

    def add(self, member: str) -> int | None:
        """Take in a member. Its rank from 0, None if it was in already."""
        at, is_in = self._find(member)
        if is_in:
            return None
        self._entries.insert(at, (_score(self._key, member), member))
        return len(self._entries) - 1 - at

    def discard(self, member: str) -> int | None:
        """Forget a member. The rank it had, None if it was not in."""
        at, is_in = self._find(member)
        if not is_in:
            return None
        del self._entries[at]
        return len(self._entries) - at

    def _find(self, member: str) -> tuple[int, bool]:
        entry = (_score(self._key, member), member)
        at = bisect_left(self._entries, entry)
        return at, at < len(self._entries) and self._entries[at] == entry

    def top(self, count: int) -> list[str]:
        """The first `count` of `ranked`."""
        return [member for _, member in reversed(self._entries[-count:])]

    def __len__(self) -> int:
        return len(self._entries)


def _score(key: bytes, member: str) -> int:
    return xxhash.xxh3_64_intdigest(key + member.encode())
