"""Health, readiness and metrics, as tools ask for them."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from p2pd.app import monitor as module
from p2pd.app.metrics import Metrics
from p2pd.app.monitor import Monitor
from p2pd.app.sections import MetricsSection
from p2pd.io.files import Descriptor, Files
from p2pd.io.store import FileStore
from p2pd.model.address import Address
from tests.support.daemon import node_config, open_daemon, open_seeder


class Disk(Files):
    """Takes no new file while `is_full`."""

    def __init__(self) -> None:
        self.is_full = False
        self.asked = 0

    def create(self, path: Path) -> Descriptor:
        self.asked += 1
        if self.is_full:
            raise OSError(28, "No space left on device")
        return super().create(path)


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[tuple[Monitor, Disk], None]:
    disk = Disk()
    store = await FileStore.open_dir(path / "store", disk)
    yield Monitor(Metrics(), store, path), disk
    store.close()


async def test_readiness_follows_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_EVERY", 0.0)
    async with opened(tmp_path) as (monitor, disk):
        assert await monitor.store_fault() is None
        disk.is_full = True
        assert "No space left" in str(await monitor.store_fault())
        disk.is_full = False
        assert await monitor.store_fault() is None
        assert not list((tmp_path / "store" / "scratch").iterdir())


async def test_the_disk_is_not_asked_for_every_question(tmp_path: Path) -> None:
    async with opened(tmp_path) as (monitor, disk):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(monitor.store_fault)
        assert disk.asked == 1


async def test_a_disk_that_hangs_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as (monitor, _):
        monkeypatch.setattr(monitor._store, "check_writable", trio.sleep_forever)
        monkeypatch.setattr(module, "PROBE_WITHIN", 0.05)
        assert "no write within" in str(await monitor.store_fault())


async def test_the_listener_serves_these_paths_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as (monitor, disk), trio.open_nursery() as nursery:
        host, port = await nursery.start(monitor.listen, Address("127.0.0.1", 0))
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", verify=False) as client:
            assert (await client.get("/healthz")).text == "ok\n"
            assert "p2pd_store_blobs 0.0" in (await client.get("/metrics")).text
            assert (await client.get("/v2/")).status_code == 404
            disk.is_full = True
            refused = await client.get("/readyz")
            assert refused.status_code == 503
            assert "free some space" in refused.text
            assert refused.text.count("\n") == 1
        nursery.cancel_scope.cancel()


async def test_node_and_seeder_answer_where_they_are_told_to(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with open_seeder(tmp_path / "seeder", "http://127.0.0.1:9") as url:
        config = node_config(tmp_path / "node", "http://127.0.0.1:9", seeders=[url])
        config = replace(config, metrics=MetricsSection(Address("127.0.0.1", port)))
        async with open_daemon(config) as node, httpx.AsyncClient(verify=False) as client:
            for base in (str(node.client.base_url), f"http://127.0.0.1:{port}", url):
                answers = [await client.get(f"{base.rstrip('/')}/{path}") for path in ("healthz", "readyz")]
                assert [answer.text for answer in answers] == ["ok\n", "ready\n"]
            assert "p2pd_peers 0.0" in (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            assert "p2pd_seeder_transfers_running 0.0" in (await client.get(f"{url}/metrics")).text
            assert (await client.get(f"http://127.0.0.1:{port}/v2/")).status_code == 404


async def test_the_loop_is_watched_once_a_second(tmp_path: Path, autojump_clock: MockClock) -> None:
    metrics = Metrics()
    store = await FileStore.open_dir(tmp_path / "store")
    with trio.move_on_after(10.5):
        await Monitor(metrics, store, tmp_path).watch_loop()
    store.close()
    assert metrics.registry.get_sample_value("p2pd_event_loop_lag_seconds_count") == 10
    assert metrics.registry.get_sample_value("p2pd_event_loop_lag_seconds_sum") == 0
