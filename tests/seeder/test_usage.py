import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
import structlog
import trio
from trio.testing import MockClock

from p2pd.model.reference import Digest, Repository
from seeder.usage import BlobUsage, SiteUsage, UsageLog, read_sites, read_usage

APP = Repository("reg.test", "app")
ONE, TWO = Digest("1" * 64), Digest("2" * 64)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.sqlite"


async def test_notes_add_up_over_batches(path: Path) -> None:
    now = [100.0]
    usage = UsageLog(path, lambda: now[0])
    usage.note_nowait(ONE, APP, 50, 50)
    usage.note_nowait(ONE, APP, 50, 20)
    await usage.flush()
    now[0] = 200.0
    usage.note_nowait(ONE, APP, 50, 1)
    usage.note_nowait(TWO, APP, 9, 9)
    await usage.flush()
    now[0] = 150.0  # the wall clock was set back
    usage.note_nowait(ONE, APP, 50, 0)
    await usage.flush()
    assert sorted(read_usage(path), key=lambda row: row.digest) == [
        BlobUsage(str(ONE), 50, "reg.test/app", 200.0, 71, 4),
        BlobUsage(str(TWO), 9, "reg.test/app", 200.0, 9, 1),
    ]


async def test_it_writes_in_batches_and_at_the_end(path: Path, mock_clock: MockClock) -> None:
    usage = UsageLog(path, lambda: 1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(usage.run)
        usage.note_nowait(ONE, APP, 5, 5)
        await trio.testing.wait_all_tasks_blocked()
        assert read_usage(path) == []
        nursery.cancel_scope.cancel()
    usage.note_nowait(ONE, APP, 5, 5)
    await usage.aclose()
    assert [row.pulls for row in read_usage(path)] == [2]


async def test_a_broken_file_is_begun_anew(path: Path) -> None:
    await trio.Path(path).write_bytes(b"no database, but long enough to be looked at" * 100)
    usage = UsageLog(path, lambda: 1.0)
    usage.note_nowait(ONE, APP, 5, 5)
    with structlog.testing.capture_logs() as logs:
        await usage.flush()
    assert [entry["event"] for entry in logs] == ["usage.begun_anew"]
    assert [row.digest for row in read_usage(path)] == [str(ONE)]


async def test_a_failure_to_write_loses_nothing(path: Path) -> None:
    usage = UsageLog(path / "nowhere", lambda: 1.0)
    usage.note_nowait(ONE, APP, 5, 5)
    with structlog.testing.capture_logs() as logs:
        await usage.flush()
    assert [entry["event"] for entry in logs] == ["usage.not_written"]
    await trio.Path(path).mkdir()
    await usage.flush()
    assert [row.pulls for row in read_usage(path / "nowhere")] == [1]


def test_a_file_that_cannot_be_read(path: Path) -> None:
    path.write_bytes(b"no database, but long enough to be looked at" * 100)
    with pytest.raises(sqlite3.Error):
        read_usage(path)


async def test_sites_add_up_and_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seeder.usage._SITES", 2)
    assert read_sites(path) == []
    usage = UsageLog(path, lambda: 100.0)
    for site in ("a", "a", "b", "c"):
        usage.note_nowait(ONE, APP, 50, 20, site)
    await usage.flush()
    usage.note_nowait(ONE, APP, 50, 1, "a")
    await usage.flush()
    assert sorted(read_sites(path), key=lambda row: row.site) == [
        SiteUsage("a", 100.0, 3, 41),
        SiteUsage("b", 100.0, 1, 20),
    ]
    [blob] = read_usage(path)
    assert blob.bytes_served == 81


async def test_of_all_sites_the_last_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seeder.usage._SITES", 2)
    at = count()
    usage = UsageLog(path, lambda: float(next(at)))
    for site in "abcdb":
        usage.note_nowait(ONE, APP, 50, 20, site)
        await usage.flush()
    assert [(row.site, row.answers) for row in read_sites(path)] == [("b", 1), ("d", 1)]


def test_a_file_that_knows_no_sites(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE blobs (digest TEXT)")
    assert read_sites(path) == []
