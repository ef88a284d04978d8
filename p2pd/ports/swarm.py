"""The swarm engine of the LAN plane: one torrent a segment."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import trio

from p2pd.model.errors import P2pdError
from p2pd.model.layout import SegmentMeta

__all__ = ["SwarmEngine", "SwarmSegment", "segment_name"]


def segment_name(meta: SegmentMeta) -> str:
    """Name of a segment's torrent and of its file: a pure function, for it is part of the info-hash."""
    return f"{meta.digest.hex}.{meta.index}"


class SwarmSegment(Protocol):
    """One segment in the session. Pieces are numbered within the segment."""

    @property
    def meta(self) -> SegmentMeta: ...

    @property
    def have(self) -> frozenset[int]:
        """Pieces that passed their hash check and can be given to peers."""
        ...

    @property
    def readable(self) -> frozenset[int]:
        """Pieces of `have` that are known to be in the file (the engine's cache was flushed since)."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether every piece is in `have`."""
        ...

    @property
    def error(self) -> P2pdError | None:
        """Why the engine gave the segment up (disk error), None while it works."""
        ...

    @property
    def changed(self) -> trio.Event:
        """Set, and replaced by a new one, when anything above changes or a piece is refused.

        Take it before looking at the state, then wait on it: no change is missed.
        """
        ...

    def take_refused(self) -> set[int]:
        """Pieces that failed their hash check since the last call, whoever gave them."""
        ...

    def add_piece_nowait(self, piece: int, data: bytes) -> None:
        """Hand over a piece that came over the WAN: soon in `have`, or refused."""
        ...

    def connect(self, host: str, port: int) -> None:
        """Dial a peer (by IP address) that said it has this segment loaded."""
        ...

    async def remove(self) -> None:
        """Take the segment out of the session; its file may be deleted afterwards."""
        ...


class SwarmEngine(Protocol):
    @property
    def port(self) -> int:
        """TCP port that peers connect to."""
        ...

    async def add(self, meta: SegmentMeta, path: Path, *, complete: bool) -> SwarmSegment:
        """Load one segment whose file is `path`, named `segment_name(meta)`.

        Returns once pieces may be handed over. `complete` says that the file is known to be
        whole; else a file that is there already is checked for pieces. Raises StoreError.
        """
        ...
