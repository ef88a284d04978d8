"""A swarm engine in memory, and the LAN on which its peers give each other pieces in virtual time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import trio

from p2pd.model.errors import P2pdError
from p2pd.model.layout import MIB, SegmentMeta

__all__ = ["MemoryEngine", "MemoryLan", "MemorySegment"]

_PORT = 6881


@dataclass
class MemoryLan:
    """Engines by port. A node takes its pieces one after the other, each as long as its bytes need."""

    nursery: trio.Nursery
    bytes_s: float = 100.0 * MIB
    engines: dict[int, MemoryEngine] = field(default_factory=dict)


@dataclass(eq=False)
class MemorySegment:
    """A segment whose file has what it was given, and what came from peers where there is a LAN."""

    engine: MemoryEngine
    meta: SegmentMeta
    path: Path
    have: frozenset[int] = frozenset()
    changed: trio.Event = field(default_factory=trio.Event)
    error: P2pdError | None = None
    refused: set[int] = field(default_factory=set)
    coming: set[int] = field(default_factory=set)

    @property
    def readable(self) -> frozenset[int]:
        return self.have

    @property
    def is_complete(self) -> bool:
        return len(self.have) == self.meta.segment.piece_count

    def take_refused(self) -> set[int]:
        refused, self.refused = self.refused, set()
        return refused

    def add_piece_nowait(self, piece: int, data: bytes) -> None:
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            file.seek(piece * self.meta.segment.piece_length)
            file.write(data)
        self.have |= {piece}
        self.changed.set()
        self.changed = trio.Event()

    def piece(self, number: int) -> bytes:
        length = self.meta.segment.piece_length
        with self.path.open("rb") as file:
            file.seek(number * length)
            return file.read(length)

    def connect(self, host: str, port: int) -> None:
        """As a swarm's connections are, it is good for both ways."""
        if (lan := self.engine.lan) is None or port not in lan.engines:
            return
        for theirs in lan.engines[port].loaded:
            if theirs.meta == self.meta:
                lan.nursery.start_soon(self._take, theirs)
                lan.nursery.start_soon(theirs._take, self)

    async def _take(self, theirs: MemorySegment) -> None:
        """Take what the other end has, as long as both ends have the segment loaded."""
        assert self.engine.lan is not None
        while self in self.engine.loaded and theirs in theirs.engine.loaded and not self.is_complete:
            changed = theirs.changed
            missing = sorted(theirs.have - self.have - self.coming)
            if not missing:
                await changed.wait()
                continue
            # Each begins elsewhere, so that they have something for each other.
            piece = missing[self.engine.port % len(missing)]
            self.coming.add(piece)
            data = theirs.piece(piece)
            async with self.engine.wire:
                await trio.sleep(len(data) / self.engine.lan.bytes_s)
            self.coming.discard(piece)
            if self in self.engine.loaded and piece not in self.have:
                self.add_piece_nowait(piece, data)

    async def remove(self) -> None:
        await trio.lowlevel.checkpoint()
        self.engine.loaded.remove(self)


class MemoryEngine:
    """`fault`, when set, is raised by `add`. Without a LAN no piece comes from a peer."""

    def __init__(self, lan: MemoryLan | None = None) -> None:
        self.lan = lan
        self.port = _PORT if lan is None else _PORT + len(lan.engines)
        self.loaded: list[MemorySegment] = []
        self.fault: P2pdError | None = None
        self.wire = trio.Lock()
        if lan is not None:
            lan.engines[self.port] = self

    async def add(self, meta: SegmentMeta, path: Path, *, complete: bool) -> MemorySegment:
        await trio.lowlevel.checkpoint()
        if self.fault is not None:
            raise self.fault
        have = frozenset(range(meta.segment.piece_count)) if complete else _checked(meta, path)
        self.loaded.append(MemorySegment(self, meta, path, have))
        return self.loaded[-1]


def _checked(meta: SegmentMeta, path: Path) -> frozenset[int]:
    """The pieces that an earlier run left in the file."""
    data, cut = path.read_bytes() if path.exists() else b"", meta.segment
    pieces = (data[start : start + cut.piece_length] for start in range(0, cut.length, cut.piece_length))
    return frozenset(
        number
        for number, piece in enumerate(pieces)
        if hashlib.sha1(piece).digest() == meta.piece_hash(number)
    )
