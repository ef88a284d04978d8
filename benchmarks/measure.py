"""One update of a whole site, measured: every node fetches the same image at the same instant.

The clock runs from the release of the first client until the last node's client has ended, with
every blob in that node's own containerd store; each is then hashed there. Every system starts from
empty stores. The yardstick is one curl of the same blobs over the same link, in the same testbed.
"""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from benchmarks.testbed import FetchOutcome, Image, Process, Testbed, TestbedError
from benchmarks.testbed.node import MIRROR_URL
from benchmarks.testbed.site import CACHE_URL

__all__ = ["SYSTEMS", "Floor", "Observer", "Scenario", "SystemResult", "measure_floor", "measure_system"]

SYSTEMS = ("direct", "pull-through", "p2pd")

Observer = Callable[[float, Sequence[int]], None]
"""Called while nodes fetch: seconds so far, bytes in each node's content store."""

_MIB = 1 << 20
_OBSERVE_S = 0.5
_GATE_S = 0.3
_DISCOVERY_S = 3.0
"""Nodes of a real site have known each other for long when an update comes; mDNS takes about 2 s."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is fetched and how: client "fetch" (distribution alone) or "pull" (with unpacking)."""

    image: Image
    client: str = "fetch"
    warm_seeder: bool = True


@dataclass(frozen=True, slots=True)
class Floor:
    """The plain download: seconds, and bytes that the site's WAN interface received."""

    seconds: float
    wan_bytes: int


@dataclass(frozen=True, slots=True)
class SystemResult:
    """One system's update.

    `wan_bytes` are those received by the site's WAN interface. `cpu_s_per_node` (mean, during the
    update) and `rss_mib_per_node` (highest peak of any node, since its start) are the p2pd
    process's alone, None for systems without one. `containerd_cpu_s_per_node` is what containerd
    and its client used, mean. `errors` holds one line for each node that failed.
    """

    system: str
    node_s: list[float]
    wan_bytes: int
    wan_ratio: float
    cpu_s_per_node: float | None = None
    rss_mib_per_node: float | None = None
    containerd_cpu_s_per_node: float | None = None
    errors: list[str] = field(default_factory=list)

    @property
    def site_s(self) -> float:
        return max(self.node_s)

    @property
    def verified(self) -> bool:
        """Whether every node holds every blob, each hashed."""
        return not self.errors


def measure_floor(bed: Testbed, image: Image) -> Floor:
    """The yardstick of everything else measured in this testbed."""
    seconds, counted = bed.plain_download(image)
    return Floor(seconds, counted.down)


def measure_system(
    bed: Testbed, ref: str, scenario: Scenario, system: str, floor: Floor, observer: Observer | None = None
) -> SystemResult:
    """Reset the site, set `system` up, update all nodes. Raises TestbedError when it cannot be set up."""
    _set_up(bed, ref, scenario, system)
    daemons = [node.p2pd for node in bed.nodes if node.p2pd is not None]
    runtimes = [node.containerd for node in bed.nodes if node.containerd is not None]
    cpu = _cpu_s(daemons), _cpu_s(runtimes) + _children_cpu_s()
    wan = bed.wan_bytes()
    outcomes = _update(bed, ref, scenario.client, 60 + 4 * len(bed.nodes) * floor.seconds, observer)
    counted = (bed.wan_bytes() - wan).down
    spent = _cpu_s(daemons) - cpu[0], _cpu_s(runtimes) + _children_cpu_s() - cpu[1]
    return SystemResult(
        system,
        [outcome.seconds for outcome in outcomes],
        counted,
        counted / floor.wan_bytes,
        spent[0] / len(daemons) if daemons else None,
        max(process.usage().peak_rss for process in daemons) / _MIB if daemons else None,
        spent[1] / len(bed.nodes),
        _errors(bed, scenario.image, outcomes),
    )


def _set_up(bed: Testbed, ref: str, scenario: Scenario, system: str) -> None:
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


def _update(
    bed: Testbed, ref: str, client: str, timeout: float, observer: Observer | None
) -> list[FetchOutcome]:
    pending = [node.prepare_fetch(ref, client) for node in bed.nodes]
    time.sleep(_GATE_S)  # each is at the gate, its start-up paid
    begun = time.monotonic()
    for one in pending:
        one.go()
    with ThreadPoolExecutor(len(pending)) as pool:
        waiting: list[Future[FetchOutcome]] = [pool.submit(one.wait, timeout) for one in pending]
        try:
            while not all(future.done() for future in waiting):
                if observer is not None:
                    observer(time.monotonic() - begun, [node.held_bytes() for node in bed.nodes])
                time.sleep(_OBSERVE_S)
        except BaseException:
            for one in pending:  # the pool's end waits for them
                one.process.send(signal.SIGKILL)
            raise
        return [future.result() for future in waiting]


def _errors(bed: Testbed, image: Image, outcomes: Sequence[FetchOutcome]) -> list[str]:
    errors = []
    for node, outcome in zip(bed.nodes, outcomes, strict=True):
        if outcome.code != 0:
            errors.append(f"{node.name}: ctr ended with {outcome.code}: {outcome.message}")
        elif wrong := node.wrong_content(image):
            errors.append(f"{node.name}: {len(wrong)} blobs absent or wrong, {wrong[0].digest} first")
    return errors


def _cpu_s(processes: Sequence[Process]) -> float:
    try:
        return sum(process.usage().cpu_s for process in processes)
    except ProcessLookupError as error:
        raise TestbedError(f"died during the measurement: {error}") from error


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
