"""Where a row plays: a whole site, one image, the run without a fault to compare with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx

from benchmarks.faults.leftovers import leftovers, store_of, wrong_held
from benchmarks.faults.row import Row, Seen
from benchmarks.testbed import Image, Node, SiteSpec, Testbed, TestbedError, synthetic_image
from benchmarks.testbed.daemons import Config
from benchmarks.testbed.live_site import LiveSite, Update, metric, sample, wait_until
from benchmarks.testbed.network import node_ip
from benchmarks.testbed.node import MIRROR_URL

__all__ = ["Stage", "measure_baseline", "open_stage", "play"]

_SETTLE_S = 5.0
_PULL_S = 60.0


class Stage:
    """Rows call `start`, `update`, `when`, `expect`, `recover`; whatever they bend, `defer` bends back."""

    def __init__(self, site: LiveSite, image: Image, ref: str) -> None:
        self.site = site
        self.bed = site.bed
        self.image = image
        self.ref = ref
        self.baseline_s: float | None = None
        self.seen = Seen()
        self.deferred = ExitStack()

    mirror = MIRROR_URL

    @property
    def nodes(self) -> Sequence[Node]:
        return self.bed.nodes

    def others(self, *nodes: Node) -> list[Node]:
        return [node for node in self.nodes if node not in nodes]

    # Playing.

    def start(
        self, nodes: Sequence[Node] | None = None, changes: Config | None = None, strangers: int = 0
    ) -> None:
        """Start these nodes (all) from nothing, and wait until all know each other."""
        self.site.start(nodes, changes, strangers)

    def update(
        self,
        during: Callable[[], None] | None = None,
        nodes: Sequence[Node] | None = None,
        judged: Sequence[Node] | None = None,
        timed: Sequence[Node] | None = None,
    ) -> Update:
        """Have `nodes` (all) fetch the image at one instant; `during` plays the fault meanwhile.

        Pulls of the `judged` nodes (all) must end right; the slowest of the `timed` ones (the
        judged) gives `extra_s`. What a runtime took from the origin itself is not p2pd's WAN use, and
        the WAN's time for it not p2pd's.
        """
        nodes = self.nodes if nodes is None else nodes
        judged = nodes if judged is None else judged
        alone = self.site.runtime_bytes()
        update = self.site.update(self.ref, self.image, nodes, during)
        alone = self.site.runtime_bytes() - alone
        seen = self.seen
        outcomes = dict(zip((node.name for node in nodes), update.outcomes, strict=True))
        seen.pulls += len(judged)
        for node in judged:
            outcome = outcomes[node.name]
            if outcome.code != 0:
                seen.pulls_failed += 1
                seen.broken.append(f"{node.name}: ctr ended with {outcome.code}: {outcome.message[-200:]}")
            else:
                seen.wrong_bytes += len(node.wrong_content(self.image))
        ratio = update.wan_ratio - alone / self.image.blob_bytes
        seen.wan_ratio = ratio + (seen.wan_ratio or 0.0)
        watched = [outcomes[node.name].seconds for node in (judged if timed is None else timed)]
        if self.baseline_s is not None and seen.extra_s is None and watched:
            seen.extra_s = max(watched) - self.baseline_s - alone * 8 / self.bed.spec.wan_bit_s
        return update

    def when(self, share: float, node: Node | None = None) -> None:
        """Wait until the runtime of `node` (the first) has this share of the image, and not all yet."""
        node = node or self.nodes[0]
        self.site.wait_held(node, int(share * self.image.blob_bytes))
        self.expect(node.held_bytes() < self.image.blob_bytes, f"{node.name} had all before the fault")

    def when_fetched(self, share: float, node: Node) -> None:
        """Wait until the p2pd of `node` has this share of the image. Its runtime gets bytes in order only, in
        leaps of up to a segment: near its end a pull is over before that shows."""
        count = share * self.image.blob_bytes

        def wait() -> bool:
            with httpx.Client(base_url=MIRROR_URL, timeout=5, trust_env=False) as client:
                return wait_until(lambda: _fetched(client.get("/metrics").text) >= count, _PULL_S)

        if not node.inside(wait):
            raise TestbedError(f"{node.name} has not fetched {count:.0f} bytes after {_PULL_S:.0f} s")

    def expect(self, holds: bool, promise: str) -> None:
        """A promise of the row's own; `promise` says what is wrong where it does not hold."""
        if not holds:
            self.seen.broken.append(promise)

    def recover(self, what: str, condition: Callable[[], bool], within: float = 30.0) -> None:
        """Measure from now until the fault is forgotten."""
        begun = time.monotonic()
        self.expect(wait_until(condition, within), f"not after {within:.0f} s: {what}")
        self.seen.recovered_s = max(time.monotonic() - begun, self.seen.recovered_s or 0.0)

    def defer(self, undo: Callable[[], object]) -> None:
        """Have this done when the row is over, however it ends."""
        self.deferred.callback(undo)

    def ip(self, node: Node, *arguments: str) -> None:
        """`ip` inside a node."""
        self.bed.outer.run(["ip", "-n", node.name, *arguments])

    def all_know_all(self) -> bool:
        """Whether each node has every other as a live peer."""
        return all(self.peers_of(node) == len(self.nodes) - 1 for node in self.nodes)

    def peers_of(self, node: Node) -> float:
        try:
            return metric(node, "p2pd_peers")
        except httpx.HTTPError:
            return -1  # it is not up at this moment

    def forget_content(self, node: Node) -> None:
        """Give the node an empty containerd; its p2pd is as it was."""
        node.lose_containerd()
        node.start_containerd()
        node.wait_containerd()

    def restart(self, node: Node, changes: Config | None = None) -> None:
        """Start its daemon again on what it left."""
        node.start_p2pd(changes)
        node.wait_p2pd()

    def cut_off(self, one: Node, other: Node) -> Callable[[], None]:
        """Lose every packet between two nodes, without a word to either; the result heals it."""
        pairs = [(one, node_ip(other.index)), (other, node_ip(one.index))]
        for node, address in pairs:
            nowhere = ["lladdr", "02:00:00:00:00:01", "nud", "permanent", "dev", "eth0"]
            self.ip(node, "neigh", "replace", address, *nowhere)

        def heal() -> None:
            for node, address in pairs:
                self.ip(node, "neigh", "del", address, "dev", "eth0")

        return heal

    # Around a row.

    @contextmanager
    def scene(self) -> Iterator[Seen]:
        """All in order at the beginning and at the end, and nothing left over in between."""
        self.seen = Seen(image_bytes=self.image.blob_bytes)
        self._tidy()
        with ExitStack() as self.deferred:
            yield self.seen
            self._look_for_leftovers()

    def _tidy(self) -> None:
        self.bed.restore_wan()
        self.bed.set_wan_rate(self.bed.spec.wan_bit_s)
        for node in self.nodes:
            node.reset()
            node.plug()
        if self.bed.seeder is None or not self.bed.seeder.is_running:
            self.bed.start_seeder()
            self.bed.warm_seeder(self.ref, self.image)

    def _look_for_leftovers(self) -> None:
        for node in self.nodes:
            if (process := node.p2pd) is not None and process.is_running:
                look = partial(leftovers, store_of(node), process)
                # A thread that ends or a file that is unlinked may take a moment.
                wait_until(lambda look=look: not look(), _SETTLE_S)  # type: ignore[misc]
                self.seen.leftovers += [f"{node.name}: {what}" for what in look()]
                self.seen.wrong_bytes += wrong_held(store_of(node))


@contextmanager
def open_stage(nodes: int, size: int, wan_bit_s: int, cache: Path | None = None) -> Iterator[Stage]:
    """Build the site, measure the plain download and the update without a fault. Raises TestbedError."""
    image = synthetic_image(77, size, 2) if cache is None else synthetic_image(77, size, 2, cache)
    with Testbed(SiteSpec(nodes=nodes, wan_bit_s=wan_bit_s)) as bed:
        site = LiveSite(bed)
        bed.start_origin()
        ref = bed.push(image)
        bed.start_seeder()
        bed.warm_seeder(ref, image)
        site.measure_floor(image)
        yield Stage(site, image, ref)


def _fetched(metrics: str) -> float:
    return sample(metrics, "p2pd_lan_bytes_total") + sample(metrics, "p2pd_wan_bytes_total")


def play(stage: Stage, row: Row) -> Seen:
    """One row. What its function raises is a broken promise, too."""
    with stage.scene() as seen:
        try:
            row.play(stage)
        except (TestbedError, httpx.HTTPError, TimeoutError) as error:
            seen.broken.append(str(error) or type(error).__name__)
    return seen


def measure_baseline(stage: Stage) -> Seen:
    """The update without a fault, which every `extra_s` is over."""
    stage.baseline_s = None
    with stage.scene() as seen:
        stage.start()
        stage.baseline_s = stage.update().seconds
    return seen
