"""The node daemon and the seeder as they run for real, in this process and on loopback only."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import trio
from structlog.testing import capture_logs

from p2pd.app.config import NodeConfig, parse
from p2pd.app.daemon import run_daemon
from seeder.config import SeederConfig
from seeder.service import run_seeder
from tests.support.waiting import until

__all__ = ["Daemon", "node_config", "open_daemon", "open_files", "open_seeder", "told"]

REGISTRY = "reg.test"


def node_config(
    state_dir: Path,
    origin: str,
    *,
    seeders: list[str] | None = None,
    direct: bool = True,
    ca_file: str = "",
    socket: str = "",
) -> NodeConfig:
    """A node on free ports of loopback that knows one upstream, `reg.test`, at the URL `origin`."""
    return parse(
        f'[node]\nsite = "test"\nstate_dir = "{state_dir}"\n'
        f'[mirror]\nlisten = "127.0.0.1:0"\ndefault_registry = "{REGISTRY}"\n'
        '[lan]\ncontrol = "127.0.0.1:0"\nswarm_port = 0\nmulticast = false\n'
        f"[wan]\nseeders = {json.dumps(seeders or [])}\ndirect = {json.dumps(direct)}\n"
        f'[upstreams."{REGISTRY}"]\nurl = "{origin}"\nca_file = "{ca_file}"\n'
        f'[admin]\nsocket = "{socket}"\n'.encode(),
        NodeConfig,
        "test.toml",
    )


@dataclass(slots=True)
class Daemon:
    """A running node: `client` talks to its mirror; `said` are the events logged up to its start."""

    client: httpx.AsyncClient
    control_port: int
    store: Path
    task: trio.lowlevel.Task
    said: list[str]

    def files(self) -> set[str]:
        """Everything the store keeps, by path below it."""
        found = {str(path.relative_to(self.store)) for path in self.store.rglob("*") if path.is_file()}
        return found - {"lock"}

    async def settled(self) -> None:
        """Until nothing is being assembled: readers have the last byte before the blob is in its place."""
        await until(lambda: not any(name.startswith(("partial/", "scratch/")) for name in self.files()))

    def tasks(self) -> int:
        """Tasks of the daemon."""
        return _count(self.task)


def _count(task: trio.lowlevel.Task) -> int:
    return 1 + sum(_count(child) for nursery in task.child_nurseries for child in nursery.child_tasks)


def open_files() -> int:
    """File descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def open_daemon(config: NodeConfig) -> AsyncGenerator[Daemon, None]:
    """Ended by cancellation, as SIGTERM does, when the context ends."""
    task: list[trio.lowlevel.Task] = []

    async def run(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        task.append(trio.lowlevel.current_task())
        await run_daemon(config, task_status)

    async with trio.open_nursery() as nursery:
        with capture_logs() as lines:
            host, port = await nursery.start(run)
        control = next(line["control"] for line in lines if line["event"] == "p2pd.ready")
        url = f"http://{host}:{port}"
        # Plain HTTP: to read the system's CAs would cost more than most tests do.
        async with httpx.AsyncClient(base_url=url, timeout=30, verify=False) as client:
            yield Daemon(
                client,
                control,
                Path(config.node.state_dir) / "store",
                task[0],
                [line["event"] for line in lines],
            )
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_seeder(
    state_dir: Path, origin: str, ca_file: str = "", socket: str = ""
) -> AsyncGenerator[str, None]:
    """A seeder before the same upstream; yields its URL."""
    config = parse(
        f'[seeder]\nlisten = "127.0.0.1:0"\nstate_dir = "{state_dir}"\ntag_ttl = "1ms"\n'
        f'[upstreams."{REGISTRY}"]\nurl = "{origin}"\nca_file = "{ca_file}"\n'
        f'[admin]\nsocket = "{socket}"\n'.encode(),
        SeederConfig,
        "test.toml",
    )
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(partial(run_seeder, config))
        yield f"http://{host}:{port}"
        nursery.cancel_scope.cancel()


def told(response: httpx.Response) -> tuple[int, str]:
    """Status and OCI code of an error answer, which must be well-formed."""
    assert response.headers.get("content-type") == "application/json", response
    (error,) = response.json()["errors"]
    assert set(error) == {"code", "message", "detail"}
    assert error["message"]
    assert "\n" not in error["message"]
    return response.status_code, error["code"]
