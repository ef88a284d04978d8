"""The node daemon: one visible nursery tree.

run_daemon
├── swarm engine (alert pump)
├── transfers (each with its own nursery)
├── shelf (unloads idle segments)
├── keeper (holds the store within its limits)
├── runtime content (hashes what containerd holds and peers ask for)
├── peers (control plane: listener, links)
├── mDNS
├── admin API (a Unix socket) and the ledger behind it
├── event-loop watch
├── mirror (last to serve, first to stop)
├── listener for metrics, where one is configured
└── service manager (told once the mirror serves)
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
import trio

from p2pd import __version__
from p2pd.app.admin import NodeAdmin
from p2pd.app.admin_http import admin_app, serve_admin
from p2pd.app.blame import leave_liars_out
from p2pd.app.config import AdminSection, NodeConfig
from p2pd.app.copies import Copies
from p2pd.app.identity import load_node_id, renew_node_id
from p2pd.app.keeper import Keeper
from p2pd.app.ledger import Ledger
from p2pd.app.links import Links, WanMeter
from p2pd.app.memory import trim_malloc
from p2pd.app.metrics import Metrics
from p2pd.app.monitor import Monitor
from p2pd.app.node_content import NodeContent
from p2pd.app.notify import Notifier
from p2pd.app.peer_service import PeerService
from p2pd.app.shelf import Shelf
from p2pd.app.site import Site
from p2pd.app.small import SmallObjects
from p2pd.app.tags import Tags
from p2pd.app.transfers import Transfers
from p2pd.app.upstreams import upstreams_of
from p2pd.app.wan import Wan
from p2pd.io.credentials import DockerConfig
from p2pd.io.mdns import Advertisement, run_mdns
from p2pd.io.origin import OriginClient
from p2pd.io.peers import PeerNetwork
from p2pd.io.registry_app import build_app
from p2pd.io.seeder_client import SeederClient
from p2pd.io.serve import serve
from p2pd.io.store import FileStore
from p2pd.io.swarm import open_swarm

__all__ = ["run_daemon"]

log = structlog.get_logger()

DEFAULT_SOCKET = AdminSection().socket


async def run_daemon(
    config: NodeConfig, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run one node until cancelled or SIGTERM; reports the mirror's (host, port) once it serves.

    Raises P2pdError where it cannot start: state directory, ports. Where another node of the site
    has this node's id, one of the two goes on under a new one, from the beginning.
    """
    while await _run_node(config, task_status):
        await trio.to_thread.run_sync(renew_node_id, Path(config.node.state_dir))
        task_status = trio.TASK_STATUS_IGNORED


async def _run_node(config: NodeConfig, task_status: trio.TaskStatus[tuple[str, int]]) -> bool:
    """Whether to begin again, under a new id."""
    is_twin = False
    for warning in config.warnings():
        log.warning("config.doubtful", reason=warning)
    metrics = Metrics()
    state_dir = Path(config.node.state_dir)
    node_id = await trio.to_thread.run_sync(load_node_id, state_dir)
    store = await FileStore.open_dir(state_dir / "store")
    async with AsyncExitStack() as stack:
        stack.callback(store.close)
        ledger = Ledger(state_dir / "traffic.json", metrics.traffic)
        await ledger.load()
        stack.push_async_callback(ledger.aclose)
        links = Links(
            wan=config.wan.node_plan,
            site_wan=config.wan.site_plan,
            lan=config.lan.node_plan,
            site_lan=config.lan.site_plan,
        )
        meter = WanMeter(lambda: links.wan_bytes_s)
        wan = await stack.enter_async_context(_open_wan(config, metrics, meter))
        engine = await stack.enter_async_context(open_swarm(config.lan.control.host, config.lan.swarm_port))
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(_stop_on_signal, nursery.cancel_scope)
        service = PeerService()

        def yield_id(_host: str) -> None:
            nonlocal is_twin
            is_twin = True
            nursery.cancel_scope.cancel()

        network = PeerNetwork(node_id, config.node.site, engine.port, service, on_twin=yield_id)
        leave_liars_out(engine, network)
        shelf = Shelf(engine, store)
        site = Site(node_id, network, store, shelf, wan, metrics, links)
        copies = Copies(node_id, network)
        keeper = Keeper(store, config.store.limits, copies=copies, shelf=shelf, on_gone=metrics.note_evicted)
        transfers = Transfers(site, nursery, keeper.make_room)
        small, tags = SmallObjects(site), Tags(site)
        registries = {spec.registry for spec in config.upstreams}
        service.attach(site, transfers, small, tags, copies, registries)
        links.own, links.has_background = transfers.use, transfers.has_background
        nursery.start_soon(shelf.tend)
        nursery.start_soon(links.run, network, engine.limit_rate)
        nursery.start_soon(keeper.run)
        if config.runtime.containerd_root:
            runtime = store.use_runtime(Path(config.runtime.containerd_root))
            nursery.start_soon(runtime.run)
        control = await nursery.start(network.run, config.lan.control.host, config.lan.control.port)
        for address in config.lan.peers:
            network.add_address(address.host, address.port, is_static=True)
        if config.lan.multicast:
            nursery.start_soon(_discover, config, node_id, engine.port, control[1], network)
        content = NodeContent(site, transfers, small, tags)
        nursery.start_soon(ledger.run)
        monitor = Monitor(metrics, store, state_dir)
        nursery.start_soon(monitor.watch_loop)
        bound = await nursery.start(_serve_mirror, config, content, site, monitor)
        if config.admin.socket:
            mirror = f"{bound[0]}:{bound[1]}"
            node = NodeAdmin(config, site, network, transfers, content, ledger, keeper, mirror, engine.port)
            app = admin_app("p2pd", __version__, node.endpoints())
            await nursery.start(serve_admin, app, config.admin.socket, DEFAULT_SOCKET, "p2pd")
        if config.metrics.listen is not None:
            await nursery.start(monitor.listen, config.metrics.listen)
        trim_malloc()
        log.info(
            "p2pd.ready",
            version=__version__,
            node=node_id,
            site=config.node.site,
            mirror=f"{bound[0]}:{bound[1]}",
            control=control[1],
            swarm=engine.port,
            blobs=sum(1 for _ in store.held()),
        )
        await nursery.start(Notifier().run, partial(_status, config, site, transfers))
        task_status.started(bound)
    return is_twin


def _status(config: NodeConfig, site: Site, transfers: Transfers) -> str:
    peers, blobs = len(site.peers.live()), sum(1 for _ in site.store.held())
    return f"site {config.node.site}: {peers} peers, {blobs} blobs, {len(transfers.all_running())} transfers"


@asynccontextmanager
async def _open_wan(config: NodeConfig, metrics: Metrics, meter: WanMeter) -> AsyncIterator[Wan]:
    async with AsyncExitStack() as stack:
        seeders = []
        for url in config.wan.seeders:
            client = SeederClient(url, site=config.node.site)
            stack.push_async_callback(client.aclose)
            seeders.append((url, client))
        origin = None
        if config.wan.direct:
            credentials = DockerConfig(Path(config.wan.docker_config)) if config.wan.docker_config else None
            origin = OriginClient({spec.registry: spec for spec in config.upstreams}, credentials)
            stack.push_async_callback(origin.aclose)
        yield Wan(seeders, origin, metrics, meter)


async def _discover(
    config: NodeConfig, node_id: str, swarm_port: int, control_port: int, network: PeerNetwork
) -> None:
    advertisement = Advertisement(node_id, config.node.site, control_port, swarm_port)
    await run_mdns(advertisement, network.add_address, interfaces=config.lan.interfaces)


async def _serve_mirror(
    config: NodeConfig,
    content: NodeContent,
    site: Site,
    monitor: Monitor,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    upstreams = upstreams_of(config.upstreams, config.mirror.default_registry)
    app = build_app(content, upstreams=upstreams, extra_routes=monitor.routes, observer=site.metrics)
    listen = config.mirror.listen
    await serve(app, host=listen.host, port=listen.port, task_status=task_status)


async def _stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("p2pd.stops", signal=signal.Signals(number).name)
            scope.cancel()
            return
