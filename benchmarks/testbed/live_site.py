"""A testbed with p2pd on its nodes, updated by real clients, and what kernel and daemons say of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks.testbed.daemons import Config
from benchmarks.testbed.images import Image
from benchmarks.testbed.namespaces import TestbedError
from benchmarks.testbed.node import MIRROR_URL, FetchOutcome, Node, PendingFetch
from benchmarks.testbed.process import Process
from benchmarks.testbed.site import Testbed
from p2pd.model.reference import Digest

__all__ = ["LiveSite", "Update", "assert_right", "log_events", "metric", "sample", "wait_until"]

_GATE_S = 0.3


@dataclass(frozen=True, slots=True)
class Update:
    """How every client ended, and what crossed the site's WAN meanwhile (bytes, and as `wan_ratio`)."""

    outcomes: list[FetchOutcome]
    wan_bytes: int
    wan_ratio: float

    @property
    def seconds(self) -> float:
        """Until the last client had ended."""
        return max(outcome.seconds for outcome in self.outcomes)


class LiveSite:
    """Nodes of one testbed, each with a containerd that pulls through its own p2pd."""

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self._floor = 0.0

    @property
    def nodes(self) -> Sequence[Node]:
        return self.bed.nodes

    def measure_floor(self, image: Image) -> float:
        """One plain download of `image`, the yardstick of every `wan_ratio`: its seconds."""
        seconds, counted = self.bed.plain_download(image)
        self._floor = counted.down / image.blob_bytes
        return seconds

    def start(
        self, nodes: Sequence[Node] | None = None, changes: Config | None = None, strangers: int = 0
    ) -> None:
        """Start these nodes (all) from nothing; wait until each knows all the others that run.

        `strangers` is the number of peers besides that are no p2pd of this testbed.
        """
        nodes = self.nodes if nodes is None else nodes
        for node in nodes:
            node.reset()
            node.start_containerd()
            node.use_mirror(MIRROR_URL)
            node.start_p2pd(changes)
        for node in nodes:
            node.wait_containerd()
            node.wait_p2pd()
        self.wait_acquainted(strangers)

    def wait_acquainted(self, strangers: int = 0) -> None:
        """Wait until every running p2pd has every other, and as many strangers, as live peers."""
        running = [node for node in self.nodes if node.p2pd is not None and node.p2pd.is_running]
        peers = len(running) - 1 + strangers

        def know_each_other() -> bool:
            return all(metric(node, "p2pd_peers") == peers for node in running)

        if not wait_until(know_each_other, 30):
            seen = [metric(node, "p2pd_peers") for node in running]
            raise TestbedError(f"nodes know {seen} peers after 30 s, not {peers} each")

    def update(
        self,
        ref: str,
        image: Image,
        nodes: Sequence[Node] | None = None,
        during: Callable[[], None] | None = None,
        client: str = "fetch",
        patience: float = 120,
    ) -> Update:
        """Have `image` fetched by all these nodes at one instant; `during` runs while they do.

        Clients are ended after `patience` seconds. Asserts nothing; see `assert_right`.
        """
        nodes = self.nodes if nodes is None else nodes
        pending = [node.prepare_fetch(ref, client) for node in nodes]
        time.sleep(_GATE_S)
        before = self.bed.wan_bytes()
        outcomes = _run(pending, during, patience)
        counted = (self.bed.wan_bytes() - before).down
        return Update(outcomes, counted, counted / (image.blob_bytes * (self._floor or 1.0)))

    def wait_held(self, node: Node, count: int, within: float = 60) -> None:
        """Wait until a node's containerd has `count` bytes of content, arriving ones too."""
        if not wait_until(lambda: node.held_bytes() >= count, within):
            raise TestbedError(f"{node.name} holds {node.held_bytes()} bytes after {within:g} s, not {count}")

    def origin_gets(self, digest: Digest) -> list[str]:
        """Addresses that asked the origin for a blob's bytes, one for each request it answered."""
        request = rf'^(\S+) .*"GET /v2/[^ ]+/blobs/{digest} HTTP/[0-9.]+" 20[06] '
        return re.findall(request, self._origin_log(), re.MULTILINE)

    def runtime_bytes(self) -> int:
        """Content bytes that containerds took from the origin by themselves, so far."""
        line = r'"GET /v2/[^ ]+/blobs/\S+ HTTP/[0-9.]+" 20[06] (\d+) "[^"]*" "containerd/'
        return sum(int(count) for count in re.findall(line, self._origin_log()))

    def _origin_log(self) -> str:
        if self.bed.origin is None or self.bed.origin.log is None:
            return ""
        return self.bed.origin.log.read_text(errors="replace")


def assert_right(update: Update, image: Image, nodes: Sequence[Node]) -> None:
    """Every client ended well, and every byte in every node's containerd is right."""
    assert [outcome.code for outcome in update.outcomes] == [0] * len(nodes), update.outcomes
    for node in nodes:
        assert node.wrong_content(image) == []


def metric(node: Node, name: str, label: str = "") -> float:
    """The sum of a metric's samples, of those whose labels have `label` in them."""
    return sample(node.http("GET", "/metrics").text, name, label)


def sample(text: str, name: str, label: str = "") -> float:
    """The same, in what /metrics answered."""
    samples = re.findall(rf"^{name}(\{{[^}}]*\}})? ([0-9.e+-]+)$", text, re.MULTILINE)
    return sum(float(value) for labels, value in samples if label in labels)


def log_events(process: Process | None, event: str) -> list[dict[str, Any]]:
    """The lines of a daemon's JSON log with this event."""
    assert process is not None
    assert process.log is not None
    lines = process.log.read_text().splitlines()
    return [json.loads(line) for line in lines if f'"event": "{event}"' in line]


def wait_until(condition: Callable[[], bool], within: float) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _run(
    pending: Sequence[PendingFetch], during: Callable[[], None] | None, patience: float
) -> list[FetchOutcome]:
    for one in pending:
        one.go()
    with ThreadPoolExecutor(len(pending)) as pool:
        waiting = [pool.submit(one.wait, patience) for one in pending]
        try:
            if during is not None:
                during()
        except BaseException:
            for one in pending:  # the pool's end waits for them
                one.process.kill()
            raise
        return [future.result() for future in waiting]
