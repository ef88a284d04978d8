"""Who is to blame for pieces that fail their hashes, by what libtorrent's bans prove.

libtorrent bans a peer that gave a whole bad piece alone, which is proof. It also takes two trust points
from whoever gave any block of a bad piece, and bans at seven (`penalize_peers` in its torrent.cpp): beside
a peer of garbage that mixes into four pieces an honest one is banned like it, and the alert is the same.
"""

from __future__ import annotations

__all__ = ["MIXED_BAN", "SUSPECT_FOR", "Suspects"]

MIXED_BAN = 4
"""Bad pieces of one torrent from which on a ban need not mean that the peer gave one of them alone."""

SUSPECT_FOR = 600.0
"""Seconds within which a second ban is proof: who took part in a bad piece gives only whole ones after it."""

_LIMIT = 1024


class Suspects:
    """Hosts that were banned once, where that proved nothing. Bounded: the oldest makes room."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def convict(self, host: str, bad_pieces: int, now: float) -> bool:
        """Whether this ban of `host`, by a torrent that had so many bad pieces, proves that it lies."""
        since = self._since.pop(host, None)
        if bad_pieces < MIXED_BAN or (since is not None and now - since < SUSPECT_FOR):
            return True
        while len(self._since) >= _LIMIT:
            del self._since[next(iter(self._since))]
        self._since[host] = now
        return False
