"""What a store lets go of, and in which order. Every node decides for itself, by its own view.

Rules that hold here:
- What is in use stays. Nothing goes without a reason: its age, or a need of room.
- Of a blob that several nodes hold the lower in rank let go first; the highest holds on as if its
  copy were the only one. So with all views alike one copy outlives any pressure on the others.
- An image goes as a whole: use of its manifest counts for its parts, and a manifest or config
  (tiny) goes after the layers that it describes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum

from p2pd.decide.ownership import ranked
from p2pd.model.layout import SMALL_BLOB
from p2pd.model.reference import Digest
from p2pd.model.stock import DiskSpace, Leftover, Limits, Stock, Stored

__all__ = [
    "ABANDONED_AFTER",
    "RESUMED_WITHIN",
    "Standing",
    "abandoned",
    "expired",
    "idle_times",
    "in_order",
    "is_tiny",
    "shortfall",
    "standing",
]

Parts = Mapping[Digest, frozenset[Digest]]
"""What each known manifest or index names."""

ABANDONED_AFTER = 24 * 3600.0
"""Seconds after which nobody is expected to go on with what an ended transfer left."""

RESUMED_WITHIN = 600.0
"""Seconds for which such a rest is worth more than old content: its client may ask again."""


class Standing(IntEnum):
    """How a blob's copy here stands to those on the other nodes; lower goes first."""

    SPARE = 0
    """A live holder of higher rank has it: that one holds on."""
    SHARED = 1
    """Others have it, but this node is the first of them."""
    SOLE = 2
    """No live node is known to have it."""


def standing(me: str, digest: Digest, others: Iterable[str]) -> Standing:
    """Where this node's copy stands when `others` (live nodes) hold the blob too."""
    holders = {me, *others}
    if len(holders) == 1:
        return Standing.SOLE
    return Standing.SHARED if ranked(digest.raw, holders)[0] == me else Standing.SPARE


def shortfall(limits: Limits, stock: Stock, space: DiskSpace, leftover_bytes: int, incoming: int) -> int:
    """Bytes that must go so that `incoming` more may come within the limits; 0 when there is room."""
    lacking = [0]
    if limits.max_bytes:
        held = sum(blob.size for blob in stock.held)
        lacking.append(held + stock.assembling + leftover_bytes + incoming - limits.max_bytes)
    wanted_free = limits.min_free.of(space.total)
    if wanted_free:
        lacking.append(wanted_free + stock.pending + incoming - space.free)
    return max(lacking)


def idle_times(held: Sequence[Stored], parts: Parts) -> dict[Digest, float]:
    """Seconds since each blob, or an image that it is of, was used.

    Use of an index or manifest is use of what it names, down to the layers. The other way round
    a manifest is as much in use as its layers, but that does not bring its other layers back.
    """
    own = {blob.digest: blob.idle for blob in held}
    tiny = {blob.digest for blob in held if is_tiny(blob)}
    named = {digest: _below(digest, parts) & own.keys() for digest in parts if digest in own}
    used = dict(own)
    for digest, below in named.items():
        for part in below:
            used[part] = min(used[part], own[digest])
    result = dict(used)
    for digest, below in named.items():
        least = min(used[each] for each in (digest, *below))
        # A config is needed as long as its manifest is, so both live as long as any layer does.
        for each in (digest, *(below & tiny)):
            result[each] = min(result[each], least)
    return result


def _below(digest: Digest, parts: Parts) -> set[Digest]:
    """Everything that a manifest or index names, directly or not. A cycle of names ends."""
    found: set[Digest] = set()
    todo = [digest]
    while todo:
        for part in parts.get(todo.pop(), ()):
            if part not in found:
                found.add(part)
                todo.append(part)
    return found


def is_tiny(blob: Stored) -> bool:
    """A manifest, a config or the like: what it takes is not worth what its loss costs."""
    return blob.size <= SMALL_BLOB


def expired(held: Sequence[Stored], idle: Mapping[Digest, float], max_age: float) -> list[Stored]:
    """Blobs that nobody used for `max_age` seconds (0: none), the longest unused first."""
    if not max_age:
        return []
    old = [blob for blob in held if idle[blob.digest] > max_age and not blob.in_use]
    return sorted(old, key=lambda blob: (is_tiny(blob), -idle[blob.digest]))


def in_order(held: Iterable[Stored], idle: Mapping[Digest, float]) -> list[Stored]:
    """Those that may go for want of room, first to go first: large ones before tiny ones, by age."""
    free = [blob for blob in held if not blob.in_use]
    return sorted(free, key=lambda blob: (is_tiny(blob), -idle[blob.digest], blob.digest.hex))


def abandoned(leftovers: Iterable[Leftover], need: int) -> list[Leftover]:
    """Rests of ended transfers that go: those of yesterday, and while `need` bytes lack also younger ones."""
    found = []
    for rest in sorted(leftovers, key=lambda rest: rest.idle, reverse=True):
        if rest.idle > (RESUMED_WITHIN if need > 0 else ABANDONED_AFTER):
            found.append(rest)
            need -= rest.size
    return found
