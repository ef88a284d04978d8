"""Traffic over restarts and days."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from p2pd.app.ledger import EVERY, Ledger
from p2pd.model.admin import Traffic

DAY = 86_400.0
NOON = 1_700_000_000.0 // DAY * DAY + DAY / 2


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Node:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = NOON
        self.traffic = Traffic()

    async def start(self) -> Ledger:
        """A daemon starts: its counters are zero."""
        self.traffic = Traffic()
        ledger = Ledger(self.path, lambda: self.traffic, lambda: self.now)
        await ledger.load()
        return ledger


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "traffic.json")


async def test_it_adds_up_over_restarts_and_days(node: Node) -> None:
    ledger = await node.start()
    node.traffic = Traffic(given=100, lan=60, seeder=30, origin=10)
    await ledger.save()
    node.now += 60

    ledger = await node.start()
    node.traffic = Traffic(given=5)
    assert ledger.total() == ledger.today() == Traffic(105, 60, 30, 10)
    assert ledger.since == NOON

    node.now += DAY
    assert ledger.today() == Traffic()
    node.traffic = Traffic(given=7)
    assert ledger.today() == Traffic(given=2)
    await ledger.save()

    node.now += DAY
    ledger = await node.start()
    assert ledger.today() == Traffic()
    assert ledger.total().given == 107


async def test_it_writes_rarely_and_at_the_end(node: Node, autojump_clock: MockClock) -> None:
    ledger = await node.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        await trio.sleep(EVERY - 1)
        assert not node.path.exists()  # by a thread virtual time would go on meanwhile
        await trio.sleep(2)
        # A thread writes it, for which virtual time does not wait.
        while not node.path.exists():  # noqa: ASYNC110
            await trio.sleep(0.01)
        node.traffic = Traffic(given=9)
        nursery.cancel_scope.cancel()
    node.traffic = Traffic(given=10)  # to a client that was still being served
    await ledger.aclose()
    assert (await node.start()).total() == Traffic(given=10)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 10_000,
        '{"since": 1, "total": {}, "day": "", "day_began": {}}',
        '{"since": "x"}',
        '{"since": 1, "total": {"given": -1, "lan": 0, "seeder": 0, "origin": 0}, "day": "", "day_began": 5}',
    ],
)
async def test_a_broken_file_begins_anew(node: Node, text: str) -> None:
    await trio.Path(node.path).write_text(text)
    with capture_logs() as said:
        ledger = await node.start()
    assert [line["event"] for line in said] == ["ledger.begun_anew"]
    assert (ledger.total(), ledger.since) == (Traffic(), NOON)


async def test_a_disk_that_takes_nothing_costs_nothing_else(tmp_path: Path) -> None:
    node = Node(tmp_path / "none" / "traffic.json")
    ledger = await node.start()
    node.traffic = Traffic(given=1)
    with capture_logs() as said:
        await ledger.save()
    assert [line["event"] for line in said] == ["ledger.not_written"]
    assert ledger.total() == Traffic(given=1)
