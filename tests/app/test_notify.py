"""What the service manager hears, on a real datagram socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from p2pd.app import notify
from p2pd.app.notify import Notifier, watchdog_seconds
from tests.support.daemon import node_config, open_daemon, open_seeder
from tests.support.waiting import until


class Manager:
    """The service manager's end."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """Every message so far."""
        while True:
            try:
                self.heard.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return self.heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield manager
    manager.close()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_the_watchdog_of_the_environment(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_seconds(environment, 7) == seconds


async def test_ready_heartbeats_stopping(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    blobs = iter(range(100))
    with trio.move_on_after(25):
        await Notifier().run(lambda: f"{next(blobs)} blobs")
    assert manager.listen() == [
        "READY=1\nSTATUS=0 blobs",
        "WATCHDOG=1\nSTATUS=1 blobs",
        "WATCHDOG=1\nSTATUS=2 blobs",
        "STOPPING=1\nSTATUS=stopping",
    ]


async def test_a_loop_that_hangs_is_silent(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Notifier().run, lambda: "fine")
        await trio.testing.wait_all_tasks_blocked()
        assert len(manager.listen()) == 1
        mock_clock.jump(3600)  # no task runs meanwhile
        assert len(manager.listen()) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert len(manager.listen()) == 2
        nursery.cancel_scope.cancel()


async def test_without_a_service_manager_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    await Notifier().run(lambda: pytest.fail("nobody asked"))


async def test_a_service_manager_that_does_not_read_stops_nothing(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(notify, "_SEND_WITHIN", 0.001)
    with trio.move_on_after(notify.STATUS_EVERY * 600):
        await Notifier().run(lambda: "fine" * 100)
    assert manager.listen()[0].startswith("READY=1")


async def test_node_and_seeder_speak(manager: Manager, tmp_path: Path) -> None:
    async with open_daemon(node_config(tmp_path / "node", "http://127.0.0.1:9")):
        await until(lambda: manager.listen() != [])
    async with open_seeder(tmp_path / "seeder", "http://127.0.0.1:9"):
        await until(lambda: len(manager.listen()) > 2)
    assert manager.listen() == [
        "READY=1\nSTATUS=site test: 0 peers, 0 blobs, 0 transfers",
        "STOPPING=1\nSTATUS=stopping",
        "READY=1\nSTATUS=0 blobs, 0 transfers",
        "STOPPING=1\nSTATUS=stopping",
    ]
