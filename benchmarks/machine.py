"""Whether the machine, and not the network, set the pace of a measurement.

All nodes of a testbed share this machine's cores. The criterion: a run was bound by CPU when for at
least a tenth of its time (`CPU_BOUND`) the cores were at least 95 % busy (`SATURATED`), looked at
every half second. The bars leave 3 to 8 % over the plain download, so a run that had no CPU to spare
for less than that cannot owe a miss to it. Time that the hypervisor gave to others counts as busy.

Pressure (PSI "some": the share of time in which something runnable waited for a core) is told
beside it, not judged: sixteen nodes that wake at one instant wait for each other on an idle machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

__all__ = [
    "CPU_BOUND",
    "NOISY",
    "CpuTimes",
    "Load",
    "LoadWatch",
    "background_share",
    "busy_share",
    "machine_document",
    "parse_cpu_times",
    "parse_pressure",
    "saturated_share",
]

SATURATED = 0.95
CPU_BOUND = 0.10
NOISY = 0.10
"""Share of the machine that others used before the clock started, from which it was not quiet."""

_IDLE, _IOWAIT, _GUEST = 3, 4, 8
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds since the machine's start, over all its cores."""

    busy: float
    total: float


@dataclass(frozen=True, slots=True)
class Load:
    """What a run took of the machine, as shares of 1.

    `busy` is the mean over all cores, `saturated` the share of time without CPU to spare, `pressure`
    that of PSI (None on kernels without), `background` what was used before the clock started.
    """

    busy: float
    saturated: float
    pressure: float | None
    background: float

    @property
    def cpu_bound(self) -> bool:
        """Whether the machine's CPU, not the network, was the bottleneck."""
        return self.saturated >= CPU_BOUND

    @property
    def noisy(self) -> bool:
        """Whether others used the machine."""
        return self.background >= NOISY

    def document(self) -> dict[str, object]:
        return {
            "busy": round(self.busy, 3),
            "saturated": round(self.saturated, 3),
            "pressure": None if self.pressure is None else round(self.pressure, 3),
            "background": round(self.background, 3),
            "cpu_bound": self.cpu_bound,
            "noisy": self.noisy,
        }


class LoadWatch:
    """Collects samples; `sample` is to be called about twice a second, from the clock's start to its end."""

    def __init__(self, background: float) -> None:
        self._background = background
        self._samples: list[CpuTimes] = []
        self._begun = time.monotonic()
        self._pressure = _pressure_us()
        self.sample()

    def sample(self) -> None:
        self._samples.append(read_cpu_times())

    def finish(self) -> Load:
        """Sum up; the last sample is taken now."""
        self.sample()
        elapsed = time.monotonic() - self._begun
        pressure, now = None, _pressure_us()
        if now is not None and self._pressure is not None and elapsed > 0:
            pressure = min(1.0, (now - self._pressure) / 1e6 / elapsed)
        first, last = self._samples[0], self._samples[-1]
        return Load(busy_share(first, last), saturated_share(self._samples), pressure, self._background)


def busy_share(before: CpuTimes, after: CpuTimes) -> float:
    """Mean share of all cores in use between two samples; 0 where no time has passed."""
    total = after.total - before.total
    return (after.busy - before.busy) / total if total > 0 else 0.0


def saturated_share(samples: Sequence[CpuTimes]) -> float:
    """Share of the time in whose intervals the cores were saturated."""
    total = sum(after.total - before.total for before, after in pairwise(samples))
    full = sum(
        after.total - before.total
        for before, after in pairwise(samples)
        if busy_share(before, after) >= SATURATED
    )
    return full / total if total > 0 else 0.0


def read_cpu_times() -> CpuTimes:
    return parse_cpu_times(Path("/proc/stat").read_text())


def background_share(seconds: float) -> float:
    """Block for `seconds`; the share of the machine that was in use."""
    before = read_cpu_times()
    time.sleep(seconds)
    return busy_share(before, read_cpu_times())


def parse_cpu_times(stat: str) -> CpuTimes:
    """The first line of /proc/stat (proc(5)); guest time is already in user time."""
    ticks = [int(field) for field in stat.split("\n", 1)[0].split()[1:]][:_GUEST]
    total = sum(ticks)
    return CpuTimes((total - ticks[_IDLE] - ticks[_IOWAIT]) / _TICKS, total / _TICKS)


def parse_pressure(text: str) -> int:
    """Microseconds of "some" in a file of /proc/pressure; raises ValueError."""
    for line in text.splitlines():
        if line.startswith("some "):
            return int(line.rpartition("total=")[2])
    raise ValueError("no line of PSI")


def machine_document() -> dict[str, object]:
    """What the figures were measured on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {"cores": os.cpu_count(), "cpu": models[0] if models else "", "kernel": os.uname().release}


def _pressure_us() -> int | None:
    try:
        return parse_pressure(Path("/proc/pressure/cpu").read_text())
    except (OSError, ValueError):
        return None
