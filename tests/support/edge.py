"""A whole site in one process: real stores and swarms, in-memory control plane and origins."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
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
from p2pd.io.store import FileStore
from p2pd.io.swarm import open_swarm
from p2pd.model.reference import Repository
from tests.support.fake_peers import FakeSite, open_fake_site
from tests.support.memory_origin import MemoryOrigin

__all__ = ["REPOSITORY", "Edge", "Node", "open_edge"]

REPOSITORY = Repository("registry.test", "app")


@dataclass(slots=True)
class Node:
    node_id: str
    content: NodeContent
    site: Site
    transfers: Transfers
    scope: trio.CancelScope


class Edge:
    """Use `open_edge`."""

    def __init__(self, lan: FakeSite, nursery: trio.Nursery, directory: Path) -> None:
        self.lan = lan
        self.seeder = MemoryOrigin()
        self.origin = MemoryOrigin()
        self._nursery = nursery
        self._directory = directory

    async def join(self, number: int, *, seeder: bool = True, origin: bool = True) -> Node:
        """Start node `number`; wait until it and those before it know each other."""
        node: Node = await self._nursery.start(self._run, number, seeder, origin)
        for other in self.lan.nodes.values():
            await other.wait_live(len(self.lan.nodes) - 1)
        return node

    async def _run(self, number: int, seeder: bool, origin: bool, task_status: trio.TaskStatus[Node]) -> None:
        node_id = f"{number:032x}"
        async with AsyncExitStack() as stack:
            store = await FileStore.open_dir(self._directory / str(number))
            stack.callback(store.close)
            engine = await stack.enter_async_context(open_swarm("127.0.0.1", 0))
            nursery = await stack.enter_async_context(trio.open_nursery())
            service, metrics = PeerService(), Metrics()
            peers = self.lan.join(node_id, service, "127.0.0.1", engine.port)
            stack.callback(self._leave, node_id)
            wan = Wan([("seeder", self.seeder)] if seeder else [], self.origin if origin else None, metrics)
            site = Site(node_id, peers, store, Shelf(engine, store), wan, metrics)
            transfers = Transfers(site, nursery)
            small, tags = SmallObjects(site), Tags(site)
            service.attach(site, transfers, small, tags)
            content = NodeContent(site, transfers, small, tags)
            task_status.started(Node(node_id, content, site, transfers, nursery.cancel_scope))
            await trio.sleep_forever()

    def _leave(self, node_id: str) -> None:
        if node_id in self.lan.nodes:
            self.lan.leave(node_id)


@asynccontextmanager
async def open_edge(directory: Path) -> AsyncGenerator[Edge, None]:
    async with open_fake_site() as lan, trio.open_nursery() as nursery:
        yield Edge(lan, nursery, directory)
        nursery.cancel_scope.cancel()
