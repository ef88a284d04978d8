"""A site of nodes without sockets, disk or swarm: the real orchestration in virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
from p2pd.model.reference import Repository
from tests.support.fake_peers import FakePeers, FakeSite, open_fake_site
from tests.support.memory_origin import MemoryOrigin
from tests.support.memory_store import MemoryStore
from tests.support.memory_swarm import MemoryEngine, MemoryLan

__all__ = ["REPOSITORY", "MemoryNode", "MemorySite", "node_id", "open_site"]

REPOSITORY = Repository("reg.test", "app")


def node_id(number: int) -> str:
    return f"{number:032x}"


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

    def __init__(
        self, lan: FakeSite, nursery: trio.Nursery, directory: Path, swarm: MemoryLan | None = None
    ) -> None:
        self.lan = lan
        self._swarm = swarm
        self.seeder = MemoryOrigin()
        self.origin = MemoryOrigin()
        self._nursery = nursery
        self._directory = directory

    def join(self, number: int, *, seeder: bool = True, origin: bool = True) -> MemoryNode:
        """Node `number`; `met` waits until all know each other."""
        me, service, metrics = node_id(number), PeerService(), Metrics()
        engine = MemoryEngine(self._swarm)
        staging = self._directory / str(number)
        staging.mkdir(exist_ok=True)
        store = MemoryStore(staging)
        peers = self.lan.join(me, service, swarm_port=engine.port)
        wan = Wan([("seeder", self.seeder)] if seeder else [], self.origin if origin else None, metrics)
        site = Site(me, peers, store, Shelf(engine, store), wan, metrics)
        transfers = Transfers(site, self._nursery, wall=trio.current_time)
        small, tags = SmallObjects(site), Tags(site)
        service.attach(site, transfers, small, tags)
        content = NodeContent(site, transfers, small, tags)
        return MemoryNode(me, peers, store, engine, site, service, transfers, small, tags, content)

    def cut(self, error: P2pdError | None) -> None:
        """Let seeder and origin fail with it; None lets them answer again."""
        self.seeder.fault = self.origin.fault = error

    async def met(self) -> None:
        for node in self.lan.nodes.values():
            await node.wait_live(len(self.lan.nodes) - 1)


@asynccontextmanager
async def open_site(directory: Path, *, swarm: bool = False) -> AsyncGenerator[MemorySite, None]:
    """`swarm`: whether pieces come from peers too."""
    async with open_fake_site() as lan, trio.open_nursery() as nursery:
        yield MemorySite(lan, nursery, directory, MemoryLan(nursery) if swarm else None)
        nursery.cancel_scope.cancel()
