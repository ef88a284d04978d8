"""Who is to blame for pieces that fail their hashes: what a ban by libtorrent proves, and what not.

libtorrent bans a peer that gave a whole bad piece alone, which is proof. Beside a peer of garbage it bans
honest ones, too, with the same alert: whoever gave any block of a bad piece loses two trust points, and is
banned at seven (`penalize_peers` in its torrent.cpp); and a piece that was half filled by a liar who has
been shut out since is put down to whoever completes it.
"""

from __future__ import annotations

__all__ = ["MIXED_BAN", "SUSPECT_FOR", "Suspects"]

MIXED_BAN = 4
"""Bad pieces of one torrent from which on a ban need not mean that the peer gave one of them alone."""

SUSPECT_FOR = 600.0
"""Seconds within which a second such ban is proof: who took part in a bad piece gives whole ones after it."""

_LIMIT = 1024


class Suspects:
    """Bounded: the oldest suspect makes room."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._last_guilty: tuple[str, float] | None = None

    def convict(self, host: str, bad_pieces: int, loaded_at: float, now: float) -> bool:
        """Whether this ban proves that `host` lies, by a torrent loaded then that had so many bad pieces."""
        if self._last_guilty is not None:
            guilty, at = self._last_guilty
            if guilty != host and at >= loaded_at:
                return False
        since = self._since.pop(host, None)
        if bad_pieces < MIXED_BAN or (since is not None and now - since < SUSPECT_FOR):
            self._last_guilty = host, now
            return True
        while len(self._since) >= _LIMIT:
            del self._since[next(iter(self._since))]
        self._since[host] = now
        return False
