"""`p2pd gc` and `p2pd-seeder gc`, asked of running daemons."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import typer
from structlog.testing import capture_logs

from p2pd.app.commands import make_app
from p2pd.app.commands.output import run_app
from p2pd.app.sections import StoreSection
from p2pd.io.store import FileStore
from p2pd.model.layout import MIB
from p2pd.model.reference import Digest
from seeder.commands import make_app as make_seeder_app
from seeder.config import SeederAdminSection, SeederConfig, SeederSection
from seeder.service import run_seeder
from tests.support.daemon import node_config, open_daemon

BODIES = [random.Random(number).randbytes(MIB + 1) for number in range(3)]
LIMITS = StoreSection(max_bytes=2 * MIB + 2)


async def fill(directory: Path) -> None:
    store = await FileStore.open_dir(directory)
    for body in BODIES:
        await store.write(Digest(hashlib.sha256(body).hexdigest()), body)
    store.close()


async def call(app: Callable[[], typer.Typer], *words: str) -> int:
    with capture_logs():  # the daemon's own lines: it lives in this process
        return await trio.to_thread.run_sync(run_app, app(), "p2pd", words)


async def check(app: Callable[[], typer.Typer], socket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    asked = ("gc", "--socket", str(socket))
    assert await call(app, *asked, "--dry-run") == 0
    assert "would free 1.0 MB; 3.1 MB held" in capsys.readouterr().out
    assert await call(app, *asked, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (len(told["gone"]), told["freed"], told["held_bytes"]) == (1, MIB + 1, 2 * MIB + 2)
    assert await call(app, *asked) == 0
    shown = capsys.readouterr()
    assert "nothing is too old or too much" in shown.err
    assert "freed 0 B; 2.1 MB held" in shown.out


async def test_gc_of_a_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await fill(tmp_path / "store")
    socket = tmp_path / "p2pd.sock"
    config = node_config(tmp_path, "http://127.0.0.1:1", socket=str(socket))
    async with open_daemon(dataclasses.replace(config, store=LIMITS)) as daemon:
        await check(make_app, socket, capsys)
        metrics = (await daemon.client.get("/metrics")).text
        assert 'p2pd_store_evicted_bytes_total{reason="last"} 1.048577e+06' in metrics


async def test_gc_of_a_seeder(
    tmp_path: Path, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    await fill(tmp_path / "store")
    socket = tmp_path / "seeder.sock"
    config = dataclasses.replace(
        SeederConfig(),
        seeder=dataclasses.replace(
            SeederSection(), listen=node_config(tmp_path, "http://x").mirror.listen, state_dir=str(tmp_path)
        ),
        admin=SeederAdminSection(str(socket)),
        store=LIMITS,
    )
    await nursery.start(run_seeder, config)
    await check(make_seeder_app, socket, capsys)


async def test_limits_that_cannot_be_met_are_told_by_the_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "p2pd.sock"
    config = node_config(tmp_path, "http://127.0.0.1:1", socket=str(socket))
    limits = StoreSection(min_free=dataclasses.replace(StoreSection().min_free, byte_count=1 << 60))
    async with open_daemon(dataclasses.replace(config, store=limits)):
        assert await call(make_app, "gc", "--socket", str(socket)) == 1
    assert "more should go and cannot: see [store]" in capsys.readouterr().out
