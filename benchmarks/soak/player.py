"""Makes the events of a plan happen on a testbed, a thread for each that is under way."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.leftovers import descriptors, leftovers, store_of, wrong_held
from benchmarks.soak.plan import Event, Kind
from benchmarks.soak.verdict import Pull, is_excused, judge_rest
from benchmarks.soak.watch import Watch
from benchmarks.testbed import Image, Node, Process, Testbed, TestbedError
from benchmarks.testbed.daemons import Config
from benchmarks.testbed.live_site import LiveSite, wait_until
from benchmarks.testbed.node import PendingFetch
from p2pd.io.admin_client import AdminClient
from p2pd.model.errors import P2pdError

__all__ = ["Player", "Seen"]

_PATIENCE_S = 180.0
_STOP_S = 10.0
_SETTLE_S = 90.0
"""Until what stays loaded for peers for a minute (p2pd.app.shelf) is gone, and a little more."""


@dataclass(slots=True)
class Seen:
    """`closing` pulls were made after all was healed: nothing excuses them."""

    pulls: list[Pull] = field(default_factory=list)
    closing: list[Pull] = field(default_factory=list)
    skipped: int = 0
    events: Counter[str] = field(default_factory=Counter)


class Player:
    """`images` with the reference of each; `changes` are to the configuration of every daemon.

    `at_rest`: open descriptors of each daemon before the first pull, and after the last.
    """

    def __init__(
        self, bed: Testbed, images: Sequence[tuple[str, Image]], changes: Config, say: Callable[[str], None]
    ) -> None:
        self._bed, self._images, self._changes, self._say = bed, images, changes, say
        self._lock = threading.Lock()
        self._busy: set[tuple[int, int]] = set()
        self._clients: set[PendingFetch] = set()
        self._places: dict[str, threading.Lock] = {}
        self._over = threading.Event()
        self.at_rest: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self.watch = Watch(bed)
        self.seen = Seen()

    def play(self, plan: Sequence[Event]) -> None:
        """Everything, then a pull of every image by every node, then a look at what is left over."""
        self._bed.start_seeder(self._changes)
        LiveSite(self._bed).start(changes=self._changes)
        self.at_rest = self._open(), {}
        looked = threading.Event()
        with ThreadPoolExecutor(256) as pool:
            watching = pool.submit(self.watch.run, looked)
            try:
                self.watch.start()
                self._follow(plan, pool)
                self.watch.calm = True
                self._close(pool)
                self._settle()
            except BaseException:
                self._break_off()
                raise
            finally:
                looked.set()
            watching.result()

    def _follow(self, plan: Sequence[Event], pool: ThreadPoolExecutor) -> None:
        under_way: list[Future[None]] = []
        for event in plan:
            self._over.wait(max(0.0, event.at - self.watch.now))
            self.seen.events[event.kind.value] += 1
            if event.kind is Kind.PULL:
                under_way += [pool.submit(self._pull, node, event.image) for node in event.nodes]
            else:
                self._say(str(event))
                under_way.append(pool.submit(self._break, event))
        for one in under_way:
            one.result()

    def _break_off(self) -> None:
        """Let every thread end soon: the pool's end waits for them."""
        with self._lock:
            self._over.set()
            clients = list(self._clients)
        for client in clients:
            client.process.kill()

    # Pulls.

    def _pull(self, number: int, image_number: int, *, closing: bool = False) -> None:
        key = (number, image_number)
        with self._lock:
            if key in self._busy:
                self.seen.skipped += 1
                return
            self._busy.add(key)
        try:
            pull = self._pulled(self._bed.node(number), image_number)
        except TestbedError as error:
            self.watch.note(f"n{number}: {error}")
            return
        finally:
            with self._lock:
                self._busy.discard(key)
        with self._lock:
            (self.seen.closing if closing else self.seen.pulls).append(pull)
        if pull.code != 0 or pull.wrong:
            excused = not closing and not pull.wrong and is_excused(pull, self.watch.outages)
            self._say(
                f"{pull.end:7.1f} s  n{number}: image {image_number} from {pull.begin:.1f} s "
                f"{'FAILED' if not excused else 'failed, as it may'}: {pull.message[-160:]}"
            )

    def _pulled(self, node: Node, image_number: int) -> Pull:
        ref, image = self._images[image_number]
        node.remove_image(ref)
        log_name = f"ctr-{image_number}.log"
        pending = node.prepare_fetch(ref, log_name=log_name)
        held, begin = self._holders(image), self.watch.now
        with self._lock:
            self._clients.add(pending)
            patience = 0.0 if self._over.is_set() else _PATIENCE_S
        pending.go()
        outcome = pending.wait(patience)
        with self._lock:
            self._clients.discard(pending)
        holders = [before & after for before, after in zip(held, self._holders(image), strict=True)]
        wrong = len(node.wrong_content(image)) if outcome.code == 0 else 0
        return Pull(
            node.index, image_number, begin, self.watch.now, outcome.code, outcome.message, wrong, holders
        )

    def _holders(self, image: Image) -> list[frozenset[int]]:
        def path(node: Node, name: str) -> Path:
            return store_of(node) / "blobs" / "sha256" / name[:2] / name

        names = [blob.digest.hex for blob in image.content]
        return [frozenset(n.index for n in self._bed.nodes if path(n, name).exists()) for name in names]

    # Faults.

    def _break(self, event: Event) -> None:
        with self._lock:
            place = self._places.setdefault(event.place, threading.Lock())
        with place:  # the one before may have taken longer than planned
            try:
                self._fault(event)
            except (TestbedError, P2pdError, TimeoutError, ProcessLookupError) as error:
                self.watch.note(f"{event.kind.value} {event.place}: {error}")

    def _fault(self, event: Event) -> None:
        match event.kind:
            case Kind.CUT_WAN:
                with self.watch.outage("wan"), _undone(self._bed.restore_wan):
                    self._bed.cut_wan()
                    self._over.wait(event.seconds)
            case Kind.KILL_SEEDER:
                assert self._bed.seeder is not None
                with self.watch.outage("seeder"):
                    self._bed.seeder.kill()
                    self._over.wait(event.seconds)
                    self._bed.start_seeder(self._changes)
            case _:
                self._node_fault(event, self._bed.node(event.nodes[0]))

    def _node_fault(self, event: Event, node: Node) -> None:
        assert node.p2pd is not None
        if event.kind is Kind.COLLECT:
            AdminClient(node.files / "p2pd.sock", node.name).post("/v1/gc", {"dry_run": False})
        elif event.kind is Kind.UNPLUG:
            with self.watch.outage(f"{node.name} port"), _undone(node.plug):
                node.unplug()
                self._over.wait(event.seconds)
        elif event.kind is Kind.HANG:
            process = node.p2pd
            with self.watch.outage(f"{node.name} daemon"), _undone(lambda: process.send(signal.SIGCONT)):
                process.send(signal.SIGSTOP)
                self._over.wait(event.seconds)
        else:
            with self.watch.outage(f"{node.name} daemon"):
                self._end(node, at_once=event.kind is Kind.KILL)
                self._over.wait(event.seconds)
                node.start_p2pd(self._changes)
                node.wait_p2pd()

    def _end(self, node: Node, *, at_once: bool) -> None:
        assert node.p2pd is not None
        if at_once:
            node.kill()
        elif (code := node.p2pd.stop(_STOP_S)) != 0:
            self.watch.note(f"{node.name}: SIGTERM: not ended well within {_STOP_S:.0f} s, code {code}")

    # The end.

    def _close(self, pool: ThreadPoolExecutor) -> None:
        self._say("all is healed: every node pulls every image")
        try:
            LiveSite(self._bed).wait_acquainted()
        except TestbedError as error:
            self.watch.note(str(error))
        for number in range(len(self._images)):
            pulls = [pool.submit(self._pull, node.index, number, closing=True) for node in self._bed.nodes]
            for pull in pulls:
                pull.result()

    def _settle(self) -> None:
        self._say("waiting for what stays loaded for peers")
        before = self.at_rest[0]
        wait_until(lambda: not self._left() and not judge_rest(before, self._open()), _SETTLE_S)
        for what in self._left():
            self.watch.note(f"left over: {what}")
        self.at_rest = before, self._open()
        for name, store, _ in self._running():
            if wrong := wrong_held(store):
                self.watch.note(f"{name}: {wrong} held blobs are not their digest")

    def _running(self) -> list[tuple[str, Path, Process]]:
        seeder_store = self._bed.outer.outside(self._bed.outer.site / "seeder" / "state" / "store")
        known = [(node.name, store_of(node), node.p2pd) for node in self._bed.nodes]
        known.append(("seeder", seeder_store, self._bed.seeder))
        return [(name, store, each) for name, store, each in known if each is not None and each.is_running]

    def _open(self) -> dict[str, int]:
        return {name: descriptors(each) for name, _, each in self._running()}

    def _left(self) -> list[str]:
        found = [
            f"{name}: {what}" for name, store, each in self._running() for what in leftovers(store, each)
        ]
        for node in self._bed.nodes:
            if node.p2pd is not None and node.p2pd.is_running:
                found += [f"{node.name}: {what}" for what in self._left_of_transfers(node)]
        return found

    def _left_of_transfers(self, node: Node) -> list[str]:
        """After pulls of everything nothing of any transfer is left, not even what could be resumed."""
        rests = [path.name for path in (store_of(node) / "partial").iterdir()]
        running = AdminClient(node.files / "p2pd.sock", node.name).get("/v1/transfers")["transfers"]
        found = [f"a transfer of {one['digest']} runs" for one in running]
        return [*found, *(f"partial/{name}" for name in rests)]


@contextmanager
def _undone(undo: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    finally:
        undo()
