"""How many bytes the WAN was spared: today and in all, over restarts.

Spared is what was given to clients minus what crossed the WAN. On one node that is its own share; over a
site the sum says what the site's WAN was spared. Counters start at zero with the daemon, so what came
before is kept in a small file, written every ten minutes and at the end: a crash loses ten minutes.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import structlog
import trio

from p2pd.io.files import Files, disk_errors, replace_file
from p2pd.model.admin import Traffic
from p2pd.model.errors import StoreError

__all__ = ["Ledger"]

log = structlog.get_logger()

EVERY = 600.0
_FILE_LIMIT = 64 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    """`day_began` is the total at the beginning of `day`, a local date."""

    since: float
    total: Traffic
    day: str
    day_began: Traffic


class Ledger:
    """`read` gives the traffic since the daemon's start; `clock` seconds since the epoch."""

    def __init__(
        self, path: Path, read: Callable[[], Traffic], clock: Callable[[], float] = time.time
    ) -> None:
        self._path, self._read, self._clock = path, read, clock
        self._before = _Kept(clock(), Traffic(), "", Traffic())
        self._day, self._day_began = "", Traffic()
        self._written: bytes | None = None

    async def load(self) -> None:
        """Go on from what is kept; a missing or corrupt file begins anew."""
        kept = await trio.to_thread.run_sync(_load, self._path)
        if kept is not None:
            self._before = kept
            self._day, self._day_began = kept.day, kept.day_began
        self._turn()

    @property
    def since(self) -> float:
        """When the counting of `total` began."""
        return self._before.since

    def total(self) -> Traffic:
        return self._before.total + self._read()

    def today(self) -> Traffic:
        """Since local midnight, or the first look after it."""
        self._turn()
        return self.total() - self._day_began

    async def run(self) -> None:
        """Write now and then until cancelled."""
        while True:
            await trio.sleep(EVERY)
            await self.save()

    async def aclose(self) -> None:
        """Write once more, when nothing is given to anybody any more."""
        with trio.CancelScope(shield=True):
            await self.save()

    async def save(self) -> None:
        """Write what has changed; a failure is logged, and tried again at the next time."""
        self._turn()
        document = _Kept(self.since, self.total(), self._day, self._day_began)
        data = json.dumps(dataclasses.asdict(document)).encode()
        if data == self._written:
            return
        try:
            with disk_errors(f"keep the traffic counted in {self._path}"):
                await trio.to_thread.run_sync(_write, self._path, data)
        except StoreError as error:
            log.warning("ledger.not_written", reason=str(error))
        else:
            self._written = data

    def _turn(self) -> None:
        day = time.strftime("%Y-%m-%d", time.localtime(self._clock()))
        if day != self._day:
            self._day, self._day_began = day, self.total()


def _write(path: Path, data: bytes) -> None:
    replace_file(Files(), path.with_name(path.name + ".new"), path, data)


def _load(path: Path) -> _Kept | None:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_FILE_LIMIT))
        return _Kept(
            _moment(document["since"]),
            _traffic(document["total"]),
            str(document["day"]),
            _traffic(document["day_began"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        log.warning("ledger.begun_anew", path=str(path), reason=repr(error))
        return None


def _moment(at: object) -> float:
    # Anything but an ordinary time: infinity is no JSON, and a huge whole number no float.
    if not isinstance(at, int | float) or not 0 <= at < 1 << 40:
        raise ValueError("the time is not in seconds since the epoch")
    return float(at)


def _traffic(counts: dict[str, object]) -> Traffic:
    fields = {field.name: counts[field.name] for field in dataclasses.fields(Traffic)}
    if not all(type(count) is int and 0 <= count < 1 << 63 for count in fields.values()):
        raise ValueError("a count is not a whole number")
    return Traffic(**fields)  # type: ignore[arg-type]  # just checked
