"""What was served, to whom, and when last: two small SQLite tables, written in batches.

It is bookkeeping, not truth: a lost or broken file is begun anew, and no request waits for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from p2pd.model.reference import Digest, Repository

__all__ = ["BlobUsage", "SiteUsage", "UsageLog", "read_sites", "read_usage"]

log = structlog.get_logger()

_SCHEMA = """
CREATE TABLE IF NOT EXISTS blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    repository TEXT NOT NULL,
    last_used REAL NOT NULL,
    bytes_served INTEGER NOT NULL,
    pulls INTEGER NOT NULL
) WITHOUT ROWID
"""

_SITES_SCHEMA = """
CREATE TABLE IF NOT EXISTS sites (
    site TEXT PRIMARY KEY,
    last_used REAL NOT NULL,
    answers INTEGER NOT NULL,
    bytes_served INTEGER NOT NULL
) WITHOUT ROWID
"""

_ADD_SITE = """
INSERT INTO sites VALUES (?, ?, ?, ?)
ON CONFLICT (site) DO UPDATE SET
    last_used = max(last_used, excluded.last_used),
    answers = answers + excluded.answers,
    bytes_served = bytes_served + excluded.bytes_served
"""

_ADD = """
INSERT INTO blobs VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (digest) DO UPDATE SET
    repository = excluded.repository,
    last_used = max(last_used, excluded.last_used),
    bytes_served = bytes_served + excluded.bytes_served,
    pulls = pulls + excluded.pulls
"""

_TRIM_SITES = """
DELETE FROM sites WHERE site IN (SELECT site FROM sites ORDER BY last_used DESC LIMIT -1 OFFSET ?)
"""

_SITES = 10_000
"""Most sites noted between two writes, and kept in all: their names are the clients' word."""

_PENDING = 50_000
"""Most blobs noted between two writes; beyond that (a disk that fails for long) notes are lost."""


@dataclass(frozen=True, slots=True)
class BlobUsage:
    """`last_used` in seconds since the epoch; `pulls` counts answers, also of ranges."""

    digest: str
    size: int
    repository: str
    last_used: float
    bytes_served: int
    pulls: int


@dataclass(frozen=True, slots=True)
class SiteUsage:
    """`site` is empty for clients that do not say."""

    site: str
    last_used: float
    answers: int
    bytes_served: int


class UsageLog:
    """Collects notes in memory and writes them every `every` seconds while `run` runs, and by `aclose`."""

    def __init__(self, path: Path, clock: Callable[[], float], every: float = 10.0) -> None:
        self._path = path
        self._clock = clock
        self._every = every
        self._pending: dict[Digest, BlobUsage] = {}
        self._sites: dict[str, SiteUsage] = {}

    def note_nowait(
        self, digest: Digest, repository: Repository, size: int, served: int, site: str = ""
    ) -> None:
        """One answer of `served` bytes of a blob has ended."""
        self._note_site(site, served)
        before = self._pending.get(digest)
        if before is None and len(self._pending) >= _PENDING:
            return
        self._pending[digest] = BlobUsage(
            str(digest),
            size,
            str(repository),
            self._clock(),
            served + (before.bytes_served if before else 0),
            1 + (before.pulls if before else 0),
        )

    def _note_site(self, site: str, served: int) -> None:
        before = self._sites.get(site)
        if before is None and len(self._sites) >= _SITES:
            return
        self._sites[site] = SiteUsage(
            site,
            self._clock(),
            1 + (before.answers if before else 0),
            served + (before.bytes_served if before else 0),
        )

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await trio.sleep(self._every)
            await self.flush()

    async def aclose(self) -> None:
        """Write once more, when no answer is being given any more."""
        with trio.CancelScope(shield=True):
            await self.flush()

    async def flush(self) -> None:
        """Write what is noted; a failure is logged and the notes are kept for the next time."""
        if not self._sites:
            return
        notes, self._pending = self._pending, {}
        sites, self._sites = self._sites, {}
        try:
            await trio.to_thread.run_sync(_write, self._path, list(notes.values()), list(sites.values()))
        except (sqlite3.Error, OSError) as error:
            log.warning("usage.not_written", file=str(self._path), reason=str(error))
            self._pending = {**notes, **self._pending}
            self._sites = {**sites, **self._sites}


def read_usage(path: Path) -> list[BlobUsage]:
    """Every blob ever served, the latest used first; empty when nothing was written yet.

    Raises sqlite3.Error. Safe while a seeder runs.
    """
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=5.0)) as database:
        rows = database.execute(
            "SELECT digest, size, repository, last_used, bytes_served, pulls "
            "FROM blobs ORDER BY last_used DESC"
        )
        return [BlobUsage(*row) for row in rows]


def read_sites(path: Path) -> list[SiteUsage]:
    """Every site ever served, the latest first; empty when nothing was written yet. As `read_usage`."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=5.0)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'sites'").fetchall():
            return []  # written by a seeder that did not count sites
        rows = database.execute(
            "SELECT site, last_used, answers, bytes_served FROM sites ORDER BY last_used DESC"
        )
        return [SiteUsage(*row) for row in rows]


def _write(path: Path, notes: list[BlobUsage], sites: list[SiteUsage]) -> None:
    """In a thread. A file that is no database is put aside, once."""
    try:
        _add(path, notes, sites)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # locked, full, read-only: not broken
            raise
        log.warning("usage.begun_anew", file=str(path), reason=str(error))
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
        _add(path, notes, sites)


def _add(path: Path, notes: list[BlobUsage], sites: list[SiteUsage]) -> None:
    rows = [
        (note.digest, note.size, note.repository, note.last_used, note.bytes_served, note.pulls)
        for note in notes
    ]
    with closing(sqlite3.connect(path, timeout=5.0)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        with database:
            database.execute(_SCHEMA)
            database.executemany(_ADD, rows)
            database.execute(_SITES_SCHEMA)
            database.executemany(
                _ADD_SITE, [(each.site, each.last_used, each.answers, each.bytes_served) for each in sites]
            )
            database.execute(_TRIM_SITES, (_SITES,))
