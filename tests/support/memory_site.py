"""A site of nodes without sockets, disk or swarm: the real orchestration in virtual time."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from p2pd.app.metrics import Metrics
from p2pd.app.node_content import NodeContent
from p2pd.app.peer_service import PeerService
from p2pd.app.shelf import Shelf
from p2pd.app.site import Site
from p2pd.app.small import SmallObjects
from p2pd.app.tags import Tags
from p2pd.app.transfers import Transfers
from p2pd.app.wan import Wan
from p2pd.model.errors import P2pdError
from p2pd.model.layout import SegmentMeta
from p2pd.model.reference import Repository
from tests.support.fake_peers import FakePeers, FakeSite, open_fake_site
from tests.support.memory_origin import MemoryOrigin
from tests.support.memory_store import MemoryStore

__all__ = ["REPOSITORY", "MemoryEngine", "MemoryNode", "MemorySegment", "MemorySite", "node_id", "open_site"]

REPOSITORY = Repository("reg.test", "app")


def node_id(number: int) -> str:
    return f"{number:032x}"


@dataclass(eq=False)
class MemorySegment:
    """A segment whose file has what it was given; no piece ever comes from a peer."""

    engine: MemoryEngine
    meta: SegmentMeta
    path: Path
    have: frozenset[int] = frozenset()
    changed: trio.Event = field(default_factory=trio.Event)
    error: P2pdError | None = None
    refused: set[int] = field(default_factory=set)

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

    def connect(self, host: str, port: int) -> None:
        pass

    async def remove(self) -> None:
        await trio.lowlevel.checkpoint()
        self.engine.loaded.remove(self)


@dataclass
class MemoryEngine:
    """`fault`, when set, is raised by `add`."""

    port: int = 6881
    loaded: list[MemorySegment] = field(default_factory=list)
    fault: P2pdError | None = None

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


@dataclass(slots=True)
class MemoryNode:
    node_id: str
    peers: FakePeers
    store: MemoryStore
    engine: MemoryEngine
    site: Site
    service: PeerService
    transfers: Transfers
    small: SmallObjects
    tags: Tags
    content: NodeContent

    def counted(self, name: str, **labels: str) -> float:
        """The value of a counter; 0.0 while it was never touched."""
        value = self.site.metrics.registry.get_sample_value(f"p2pd_{name}_total", labels)
        return 0.0 if value is None else value


class MemorySite:
    """Use `open_site`."""

    def __init__(self, lan: FakeSite, nursery: trio.Nursery, directory: Path) -> None:
        self.lan = lan
        self.seeder = MemoryOrigin()
        self.origin = MemoryOrigin()
        self._nursery = nursery
        self._directory = directory

    def join(self, number: int, *, seeder: bool = True, origin: bool = True) -> MemoryNode:
        """Node `number`; `met` waits until all know each other."""
        me, service, metrics, engine = node_id(number), PeerService(), Metrics(), MemoryEngine()
        staging = self._directory / str(number)
        staging.mkdir(exist_ok=True)
        store = MemoryStore(staging)
        peers = self.lan.join(me, service)
        wan = Wan([("seeder", self.seeder)] if seeder else [], self.origin if origin else None, metrics)
        site = Site(me, peers, store, Shelf(engine, store), wan, metrics)
        transfers, small, tags = Transfers(site, self._nursery), SmallObjects(site), Tags(site)
        service.attach(site, transfers, small, tags)
        content = NodeContent(site, transfers, small, tags)
        return MemoryNode(me, peers, store, engine, site, service, transfers, small, tags, content)

    async def met(self) -> None:
        for node in self.lan.nodes.values():
            await node.wait_live(len(self.lan.nodes) - 1)


@asynccontextmanager
async def open_site(directory: Path) -> AsyncGenerator[MemorySite, None]:
    async with open_fake_site() as lan, trio.open_nursery() as nursery:
        yield MemorySite(lan, nursery, directory)
        nursery.cancel_scope.cancel()
