"""What an operator's tools ask a daemon: /metrics, /healthz, /readyz; the same on node and seeder.

/healthz: 200 from a process whose event loop turns; no answer is the other answer.
/readyz: 200 while the store takes writes, else 503 and why. A seeder, a registry or a peer that is
away makes nobody unready: what is held is served all the same.
"""

from __future__ import annotations

from pathlib import Path

import structlog
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from p2pd.app.metrics import DaemonMetrics
from p2pd.io.serve import serve
from p2pd.io.store import FileStore
from p2pd.model.address import Address
from p2pd.model.errors import StoreError

__all__ = ["Monitor"]

log = structlog.get_logger()

PROBE_EVERY = 5.0
"""Seconds for which the store's last probe is the answer, however often it is asked for."""

PROBE_WITHIN = 2.0
"""Seconds after which a disk that hangs counts as not writable."""

TICK = 1.0


class Monitor:
    """Routes for the daemon's own port, and a listener for them alone where one is configured."""

    def __init__(self, metrics: DaemonMetrics, store: FileStore, state_dir: Path) -> None:
        self._metrics = metrics
        self._store = store
        self._state_dir = state_dir
        self._probed_at = float("-inf")
        self._fault: str | None = None
        self._probing = trio.Lock()
        self.routes = [
            Route("/metrics", self._show_metrics),
            Route("/healthz", self._show_health),
            Route("/readyz", self._show_readiness),
        ]

    async def watch_loop(self) -> None:
        """Note how late the event loop runs what is due, for ever."""
        while True:
            due = trio.current_time() + TICK
            await trio.sleep_until(due)
            self._metrics.loop_lag.observe(trio.current_time() - due)

    async def listen(
        self, address: Address, *, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve the routes, and nothing else, for ever. Raises as `serve` does."""
        app = Starlette(routes=self.routes)
        await serve(app, host=address.host, port=address.port, max_connections=64, task_status=task_status)

    async def store_fault(self) -> str | None:
        """Why the store takes no writes; None while it does."""
        async with self._probing:
            if trio.current_time() - self._probed_at < PROBE_EVERY:
                return self._fault
            fault = await self._probe()
            if fault is not None and self._fault is None:
                log.error("store.not_writable", reason=fault)
            elif fault is None and self._fault is not None:
                log.info("store.writable_again")
            self._fault, self._probed_at = fault, trio.current_time()
            return fault

    async def _probe(self) -> str | None:
        try:
            with trio.fail_after(PROBE_WITHIN):
                await self._store.check_writable()
        except StoreError as error:
            return str(error)
        except trio.TooSlowError:
            return f"the disk of {self._state_dir} took no write within {PROBE_WITHIN:g} s"
        return None

    async def _show_metrics(self, _request: Request) -> Response:
        try:
            free = (await self._store.space()).free
        except StoreError:
            free = 0
        self._metrics.show_store(self._store, free)
        return Response(self._metrics.render(), media_type=DaemonMetrics.content_type)

    async def _show_health(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _show_readiness(self, _request: Request) -> Response:
        fault = await self.store_fault()
        return PlainTextResponse("ready\n") if fault is None else PlainTextResponse(f"{fault}\n", 503)
