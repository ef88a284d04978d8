"""Looks at the daemons of a site while it is used: memory, descriptors, ends that nobody asked for, logs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.faults.leftovers import descriptors
from benchmarks.machine import LoadWatch
from benchmarks.soak.verdict import Outage, Series
from benchmarks.testbed import Process, Testbed

__all__ = ["Watch", "error_events", "tracebacks"]

_EVERY_S = 2.0


class Watch:
    """`broken`: promises that were seen broken. Times count from `start`. Safe to use in several threads."""

    def __init__(self, bed: Testbed) -> None:
        self._bed = bed
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._lives: dict[int, Series] = {}
        self._named: Counter[str] = Counter()
        self._reported: set[int] = set()
        self._outages: list[Outage] = []
        self._machine = LoadWatch(0.0)
        self.broken: list[str] = []
        self.calm = False
        """At the end every node pulls every image, and more is open than ever: growth shows before."""

    def start(self) -> None:
        self._begun = time.monotonic()
        self._machine = LoadWatch(0.0)

    @property
    def saturated(self) -> float:
        """Share of the time in which this machine had no CPU to spare."""
        return self._machine.finish().saturated

    @property
    def now(self) -> float:
        return time.monotonic() - self._begun

    @property
    def series(self) -> list[Series]:
        """One for each life of each daemon, in the order in which they began."""
        return list(self._lives.values())

    @property
    def outages(self) -> list[Outage]:
        with self._lock:
            return list(self._outages)

    def note(self, broken: str) -> None:
        """A promise was broken just now."""
        with self._lock:
            self.broken.append(f"{self.now:.1f} s: {broken}")

    @contextmanager
    def outage(self, place: str) -> Iterator[None]:
        """Something is broken on purpose until the block ends."""
        begun = Outage(place, self.now)
        with self._lock:
            self._outages.append(begun)
        try:
            yield
        finally:
            with self._lock:
                self._outages[self._outages.index(begun)] = Outage(place, begun.begin, self.now)

    def run(self, over: threading.Event) -> None:
        """Look until it is `over`."""
        while not over.wait(_EVERY_S):
            self._machine.sample()
            for name, process in self._daemons():
                self._look(name, process)

    def _daemons(self) -> list[tuple[str, Process]]:
        known = [(node.name, node.p2pd) for node in self._bed.nodes] + [("seeder", self._bed.seeder)]
        return [(name, process) for name, process in known if process is not None]

    def _look(self, name: str, process: Process) -> None:
        if id(process) not in self._lives:
            self._named[name] += 1
            life = self._named[name]
            self._lives[id(process)] = Series(name if life == 1 else f"{name} ({life})")
        try:
            sample = (self.now, process.usage().rss, descriptors(process))
        except ProcessLookupError:
            self._look_at_end(name, process)
            return
        if not self.calm:
            self._lives[id(process)].samples.append(sample)

    def _look_at_end(self, name: str, process: Process) -> None:
        place = name if name == "seeder" else f"{name} daemon"
        meant = any(outage.place == place and outage.end > self.now - _EVERY_S for outage in self.outages)
        if not meant and id(process) not in self._reported:
            self._reported.add(id(process))
            self.note(
                f"{process.name} ended by itself ({process.returncode}): {process.last_words(1)[-300:]}"
            )


def tracebacks(bed: Testbed) -> list[str]:
    """A line for each daemon's log with a traceback in it."""
    found = []
    for name, log in bed.daemon_logs().items():
        if "-p2pd" in name:
            lines = log.read_text(errors="replace").splitlines()
            if hits := [line for line in lines if "Traceback" in line]:
                rest = lines[lines.index(hits[0]) + 1 :]
                said = next((line for line in rest if not line.startswith((" ", "|", "+"))), "")
                found.append(f"{len(hits)} tracebacks in the log of {name}: {hits[0][:200]} … {said[:300]}")
    return found


def error_events(bed: Testbed) -> Counter[str]:
    """Log lines of level error by daemon and event: not judged, but worth a look."""
    found: Counter[str] = Counter()
    for name, log in bed.daemon_logs().items():
        for line in log.read_text(errors="replace").splitlines() if "-p2pd" in name else ():
            if '"level": "error"' in line:
                found[line.partition('"event": "')[2].partition('"')[0]] += 1
    return found
