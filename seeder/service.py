"""The seeder: one visible nursery tree.

run_seeder
├── transfers (one task a blob on its way)
├── usage log (writes every few seconds)
├── admin API (a Unix socket)
├── keeper (holds the store within its limits)
├── event-loop watch
├── registry API with the segment endpoint (last to serve, first to stop)
├── listener for metrics, where one is configured
└── service manager (told once the API serves)
"""

from __future__ import annotations

import signal
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import structlog
import trio

from p2pd import __version__
from p2pd.app.admin_http import admin_app, serve_admin
from p2pd.app.keeper import Keeper
from p2pd.app.monitor import Monitor
from p2pd.app.notify import Notifier
from p2pd.app.upstreams import upstreams_of
from p2pd.io.credentials import DockerConfig
from p2pd.io.origin import OriginClient
from p2pd.io.registry_app import build_app
from p2pd.io.serve import serve
from p2pd.io.store import FileStore
from seeder.admin import SeederAdmin
from seeder.config import SeederAdminSection, SeederConfig
from seeder.content import SeederContent
from seeder.metrics import SeederMetrics
from seeder.segments import segment_route
from seeder.sites import noted_for_site, with_site
from seeder.transfers import Transfers
from seeder.usage import UsageLog

__all__ = ["run_seeder", "usage_path"]

log = structlog.get_logger()

DEFAULT_SOCKET = SeederAdminSection().socket

ANSWER_WITHIN = 4.0
"""Seconds from request to headers: fewer than nodes wait, else a slow origin looks like a dead seeder."""

_CLIENTS = 2048
"""Connections: a seeder serves every node of many sites, each with a few at once."""


def usage_path(config: SeederConfig) -> Path:
    """Where the bookkeeping of what was served is."""
    return Path(config.seeder.state_dir) / "usage.sqlite"


async def run_seeder(
    config: SeederConfig, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run until cancelled or SIGTERM; reports the (host, port) served once it serves.

    Raises P2pdError where it cannot start: state directory, port, CA file.
    """
    section = config.seeder
    credentials = DockerConfig(Path(section.docker_config)) if section.docker_config else None
    async with AsyncExitStack() as stack:
        store = await FileStore.open_dir(Path(section.state_dir) / "store")
        stack.callback(store.close)
        origin = OriginClient({spec.registry: spec for spec in config.upstreams}, credentials)
        stack.push_async_callback(origin.aclose)
        usage = UsageLog(usage_path(config), time.time)
        stack.push_async_callback(usage.aclose)
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(_stop_on_signal, nursery.cancel_scope)
        nursery.start_soon(usage.run)
        metrics = SeederMetrics()
        keeper = Keeper(store, config.store.limits, on_gone=metrics.note_evicted)
        nursery.start_soon(keeper.run)
        transfers = Transfers(store, origin, nursery, make_room=keeper.make_room, metrics=metrics)
        content = SeederContent(
            store,
            origin,
            transfers,
            tag_ttl=section.tag_ttl,
            on_served=noted_for_site(usage.note_nowait),
            metrics=metrics,
        )
        monitor = Monitor(metrics, store, Path(section.state_dir))
        nursery.start_soon(monitor.watch_loop)
        bound = await nursery.start(_serve, config, content, metrics, monitor)
        if config.metrics.listen is not None:
            await nursery.start(monitor.listen, config.metrics.listen)
        if config.admin.socket:
            listen = f"{bound[0]}:{bound[1]}"
            seeder = SeederAdmin(config, store, transfers, keeper, usage, usage_path(config), listen)
            app = admin_app("p2pd-seeder", __version__, seeder.endpoints())
            await nursery.start(serve_admin, app, config.admin.socket, DEFAULT_SOCKET, "p2pd-seeder")
        log.info(
            "seeder.ready",
            version=__version__,
            listen=f"{bound[0]}:{bound[1]}",
            upstreams=[spec.registry for spec in config.upstreams],
            blobs=sum(1 for _ in store.held()),
        )
        await nursery.start(Notifier().run, partial(_status, store, transfers))
        task_status.started(bound)


def _status(store: FileStore, transfers: Transfers) -> str:
    return f"{sum(1 for _ in store.held())} blobs, {transfers.running} transfers"


async def _serve(
    config: SeederConfig,
    content: SeederContent,
    metrics: SeederMetrics,
    monitor: Monitor,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    upstreams = upstreams_of(config.upstreams, config.seeder.default_registry)
    app = build_app(
        content,
        upstreams=upstreams,
        extra_routes=[segment_route(content, upstreams, metrics), *monitor.routes],
        deadline=ANSWER_WITHIN,
        observer=metrics,
        holding=content.holding,
    )
    listen = config.seeder.listen
    await serve(
        with_site(app), host=listen.host, port=listen.port, max_connections=_CLIENTS, task_status=task_status
    )


async def _stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("seeder.stops", signal=signal.Signals(number).name)
            scope.cancel()
            return
