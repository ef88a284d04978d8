"""The swarm engine of the LAN plane: one torrent a segment."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from p2pd.model.layout import SegmentMeta

__all__ = ["SwarmEngine", "SwarmSegment"]


class SwarmSegment(Protocol):
    """One segment in the session. Pieces are numbered within the segment."""

    @property
    def meta(self) -> SegmentMeta: ...

    @property
    def have(self) -> frozenset[int]:
        """Pieces that passed their hash check."""
        ...

    @property
    def is_complete(self) -> bool: ...

    @property
    def readable(self) -> frozenset[int]:
        """Pieces that are also known to be in the file (their cache was flushed since)."""
        ...

    def available(self) -> frozenset[int]:
        """Pieces that at least one connected peer has."""
        ...

    async def wait_change(self) -> None:
        """Wait until `have`, `readable` or the error state grew since the last call."""
        ...

    def add_piece_nowait(self, piece: int, data: bytes) -> None:
        """Hand over a piece that came over the WAN; it is hash-checked and then in `have`."""
        ...

    def connect(self, host: str, port: int) -> None:
        """Dial a peer that said it has this segment loaded."""
        ...

    async def remove(self) -> None:
        """Take the segment out of the session, waiting until its file is no longer in use."""
        ...


class SwarmEngine(Protocol):
    @property
    def port(self) -> int:
        """TCP port that peers connect to."""
        ...

    async def add(self, meta: SegmentMeta, path: Path, *, complete: bool) -> SwarmSegment:
        """Load one segment whose file is `path`; `complete` says that the file is known to be whole.

        Returns once pieces may be handed over. A file that is there already is checked for
        pieces when `complete` is false.
        """
        ...
