"""One update of a whole site, measured: every node fetches the same image into its own containerd.

The clock runs from the release of the first client until the last node's client has ended, with
every blob in that node's own containerd store; each is then hashed there. Every system starts from
empty stores. The yardstick is one curl of the same blobs over the same link, in the same testbed;
where the seeder is cold, through a cold seeder, which must itself fetch them first.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from benchmarks.arrival import TOGETHER, Arrival
from benchmarks.machine import Load, LoadWatch, background_share
from benchmarks.testbed import FetchOutcome, Image, Process, Testbed, TestbedError
from benchmarks.testbed.live_site import metric
from benchmarks.testbed.node import MIRROR_URL, PendingFetch
from benchmarks.testbed.site import CACHE_URL

__all__ = [
    "SYSTEMS",
    "Curve",
    "Floor",
    "LateJoin",
    "Observer",
    "Scenario",
    "SystemResult",
    "measure_floor",
    "measure_system",
    "set_up",
]

SYSTEMS = ("direct", "pull-through", "p2pd")

Observer = Callable[[float, Sequence[int]], None]
"""Called while nodes fetch: seconds so far, bytes in each node's content store."""

_MIB = 1 << 20
_OBSERVE_S = 0.5
_SETTLE_S = 0.3
_BACKGROUND_S = 0.7
_DISCOVERY_S = 3.0
"""Nodes of a real site have known each other for long when an update comes; mDNS takes about 2 s."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is fetched and how: client "fetch" (distribution alone) or "pull" (with unpacking)."""

    image: Image
    client: str = "fetch"
    warm_seeder: bool = True
    arrival: Arrival = TOGETHER


@dataclass(frozen=True, slots=True)
class Floor:
    """The plain download: seconds, and bytes that the site's WAN interface received."""

    seconds: float
    wan_bytes: int


@dataclass(frozen=True, slots=True)
class Curve:
    """Progress of the update: seconds since its start, and for each node the bytes it held then."""

    seconds: list[float] = field(default_factory=list)
    held: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LateJoin:
    """What came over the WAN while the late nodes fetched what the others held.

    `wan_bytes` are all bytes of the site's WAN interface, questions about tags among them;
    `wan_blob_bytes` what the site's p2pds say that they fetched of content (None for systems without).
    """

    node_s: list[float]
    wan_bytes: int
    wan_blob_bytes: int | None


@dataclass(frozen=True, slots=True)
class SystemResult:
    """One system's update.

    `node_s` is each node's own wait, `starts` when it began. `wan_bytes` are those received by the
    site's WAN interface. `cpu_s_per_node` (mean, during the update), `rss_mib_per_node` (highest VmHWM
    of any node, since its start, pages of mapped files included) and `anon_mib_per_node` (highest
    RssAnon seen, twice a second) are the p2pd process's alone, None for systems without one; those of
    the seeder likewise. `containerd_cpu_s_per_node` is what containerd and its client used, mean.
    `errors` holds one line for each node that failed.
    """

    system: str
    node_s: list[float]
    wan_bytes: int
    wan_ratio: float
    cpu_s_per_node: float | None = None
    rss_mib_per_node: float | None = None
    containerd_cpu_s_per_node: float | None = None
    errors: list[str] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    anon_mib_per_node: float | None = None
    seeder_cpu_s: float | None = None
    seeder_rss_mib: float | None = None
    curve: Curve | None = None
    load: Load | None = None
    late: LateJoin | None = None

    @property
    def site_s(self) -> float:
        """From the first node's start to the last node's end."""
        starts = self.starts or [0.0] * len(self.node_s)
        return max(start + wait for start, wait in zip(starts, self.node_s, strict=True))

    @property
    def verified(self) -> bool:
        """Whether every node holds every blob, each hashed."""
        return not self.errors


def measure_floor(bed: Testbed, image: Image, *, cold_seeder: bool = False) -> Floor:
    """The yardstick of everything else measured in this testbed."""
    if not cold_seeder:
        seconds, counted = bed.plain_download(image)
        return Floor(seconds, counted.down)
    bed.reset_seeder()
    bed.start_seeder()
    seconds, counted = bed.plain_download(image, through_seeder=True)
    bed.reset_seeder()
    return Floor(seconds, counted.down)


def measure_system(
    bed: Testbed, ref: str, scenario: Scenario, system: str, floor: Floor, observer: Observer | None = None
) -> SystemResult:
    """Reset the site, set `system` up, update all nodes. Raises TestbedError when it cannot be set up."""
    set_up(bed, ref, scenario, system)
    daemons = [node.p2pd for node in bed.nodes if node.p2pd is not None]
    runtimes = [node.containerd for node in bed.nodes if node.containerd is not None]
    seeder = [bed.seeder] if bed.seeder is not None else []
    before = _cpu_s(daemons), _cpu_s(seeder), _cpu_s(runtimes) + _children_cpu_s()
    wan = bed.wan_bytes()
    update = _Update(bed, ref, scenario, 60 + 4 * len(bed.nodes) * floor.seconds, observer)
    late = update.run()
    counted = (bed.wan_bytes() - wan).down
    after = _cpu_s(daemons), _cpu_s(seeder), _cpu_s(runtimes) + _children_cpu_s()
    nodes = len(bed.nodes)
    return SystemResult(
        system,
        [outcome.seconds for outcome in update.outcomes],
        counted,
        counted / floor.wan_bytes,
        (after[0] - before[0]) / nodes if daemons else None,
        _peak_mib(daemons),
        (after[2] - before[2]) / nodes,
        _errors(bed, scenario.image, update.outcomes),
        update.starts,
        update.anon / _MIB if daemons else None,
        after[1] - before[1] if seeder else None,
        _peak_mib(seeder),
        update.curve,
        update.load,
        late,
    )


def set_up(bed: Testbed, ref: str, scenario: Scenario, system: str) -> None:
    """Empty every store and start `system` on all nodes, each with a containerd that uses it."""
    for node in bed.nodes:
        node.reset()
    bed.reset_cache()
    bed.reset_seeder()
    bed.start_containerds()
    mirror = {"direct": None, "pull-through": CACHE_URL, "p2pd": MIRROR_URL}[system]
    for node in bed.nodes:
        node.use_mirror(mirror)
    if system == "pull-through":
        bed.start_cache()
    if system == "p2pd":
        bed.start_seeder()
        if scenario.warm_seeder:
            bed.warm_seeder(ref, scenario.image)
        bed.start_p2pds()
        time.sleep(_DISCOVERY_S)


class _Update:
    """One update under way: its clients, the clock, and what is watched meanwhile."""

    def __init__(
        self, bed: Testbed, ref: str, scenario: Scenario, timeout: float, observer: Observer | None
    ) -> None:
        self._bed = bed
        self._ref = ref
        self._client = scenario.client
        self._waves = scenario.arrival.waves(len(bed.nodes))
        self._timeout = timeout
        self._observer = observer
        self._daemons = [node.p2pd for node in bed.nodes if node.p2pd is not None]
        self._given_up = threading.Event()
        self.outcomes: list[FetchOutcome] = []
        self.starts: list[float] = []
        self.curve = Curve(held=[[] for _ in bed.nodes])
        self.anon = 0
        self.load: Load | None = None

    def run(self) -> LateJoin | None:
        """Blocks until all clients have ended."""
        gate = self._gate(self._waves[0])
        time.sleep(_SETTLE_S)  # each is at the gate, its start-up paid
        watch = LoadWatch(background_share(_BACKGROUND_S))
        begun = time.monotonic()
        self._wave(gate, self._waves[0], begun, watch)
        late = None
        if self._waves[1:]:
            late = self._late(begun, watch)
        self.load = watch.finish()
        self._observe(time.monotonic() - begun)
        return late

    def _late(self, begun: float, watch: LoadWatch) -> LateJoin:
        gate = self._gate(self._waves[1])
        time.sleep(_SETTLE_S)
        wan, blobs = self._bed.wan_bytes(), self._wan_blob_bytes()
        first = len(self.outcomes)
        self._wave(gate, self._waves[1], begun, watch)
        counted = (self._bed.wan_bytes() - wan).down
        fetched = self._wan_blob_bytes() - blobs if self._daemons else None
        return LateJoin([outcome.seconds for outcome in self.outcomes[first:]], counted, fetched)

    def _gate(self, offsets: Sequence[float]) -> list[PendingFetch]:
        first = len(self.outcomes)
        nodes = self._bed.nodes[first : first + len(offsets)]
        return [node.prepare_fetch(self._ref, self._client) for node in nodes]

    def _wave(
        self, gate: list[PendingFetch], offsets: Sequence[float], begun: float, watch: LoadWatch
    ) -> None:
        now = time.monotonic() if self.starts else begun  # the first wave is the clock's zero
        self.starts += [now - begun + offset for offset in offsets]
        for one, offset in zip(gate, offsets, strict=True):
            if not offset:
                one.go()
        with ThreadPoolExecutor(len(gate)) as pool:
            waiting = [
                pool.submit(self._follow, one, now + offset if offset else None)
                for one, offset in zip(gate, offsets, strict=True)
            ]
            try:
                self._watch(waiting, begun, watch)
            except BaseException:
                self._given_up.set()
                for one in gate:  # the pool's end waits for them
                    one.process.send(signal.SIGKILL)
                raise
            self.outcomes += [future.result() for future in waiting]

    def _follow(self, one: PendingFetch, at: float | None) -> FetchOutcome:
        if at is not None:
            self._given_up.wait(max(0.0, at - time.monotonic()))
            one.go()
        return one.wait(self._timeout)

    def _watch(self, waiting: Sequence[Future[FetchOutcome]], begun: float, watch: LoadWatch) -> None:
        pending = set(waiting)
        while pending:
            self._observe(time.monotonic() - begun)
            watch.sample()
            pending = wait(pending, _OBSERVE_S).not_done

    def _observe(self, seconds: float) -> None:
        held = [node.held_bytes() for node in self._bed.nodes]
        self.curve.seconds.append(round(seconds, 3))
        for line, count in zip(self.curve.held, held, strict=True):
            line.append(count)
        for daemon in self._daemons:
            with contextlib.suppress(ProcessLookupError):  # it died: the client's failure tells
                self.anon = max(self.anon, daemon.usage().anon)
        if self._observer is not None:
            self._observer(seconds, held)

    def _wan_blob_bytes(self) -> int:
        nodes = [node for node in self._bed.nodes if node.p2pd is not None]
        return int(sum(metric(node, "p2pd_wan_bytes_total") for node in nodes))


def _errors(bed: Testbed, image: Image, outcomes: Sequence[FetchOutcome]) -> list[str]:
    errors = []
    for node, outcome in zip(bed.nodes, outcomes, strict=True):
        if outcome.code != 0:
            errors.append(f"{node.name}: ctr ended with {outcome.code}: {outcome.message}")
        elif wrong := node.wrong_content(image):
            errors.append(f"{node.name}: {len(wrong)} blobs absent or wrong, {wrong[0].digest} first")
    return errors


def _peak_mib(processes: Sequence[Process]) -> float | None:
    return max(process.usage().peak_rss for process in processes) / _MIB if processes else None


def _cpu_s(processes: Sequence[Process]) -> float:
    try:
        return sum(process.usage().cpu_s for process in processes)
    except ProcessLookupError as error:
        raise TestbedError(f"died during the measurement: {error}") from error


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
