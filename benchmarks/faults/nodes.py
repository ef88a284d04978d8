"""Rows: a node's daemon or machine ends, hangs, or is two."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable

from benchmarks.faults.row import Limits, Row
from benchmarks.faults.stage import Stage
from benchmarks.testbed import Node
from benchmarks.testbed.live_site import log_events

__all__ = ["ROWS"]

_HANG_S = 30.0
_STOP_S = 10.0
_REFUSED_S = 20.0


def _killed_at(share: float) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        victim = stage.nodes[1]
        stage.start()

        def kill() -> None:
            stage.when_fetched(share, victim)
            victim.kill()
            ended, layers = log_events(victim.p2pd, "transfer.ends"), len(stage.image.blobs) - 1
            stage.expect(len(ended) < layers, "it held all before it was killed")
            stage.restart(victim)

        # Its runtime goes on at the registry: only the others are timed.
        stage.update(kill, timed=stage.others(victim))
        stage.recover("it knows its peers again", lambda: stage.peers_of(victim) == len(stage.nodes) - 1)
        stage.forget_content(victim)
        stage.update(nodes=[victim])

    return play


def _lone_killed(stage: Stage) -> None:
    node = stage.nodes[0]
    stage.start([node])

    def kill() -> None:
        stage.when(0.5, node)
        node.kill_containerd()
        node.kill()

    stage.update(kill, [node], judged=[])
    node.start_containerd()
    stage.restart(node)
    node.wait_containerd()
    stage.update(nodes=[node])


def _powered_off(stage: Stage, victims: list[Node], share: float) -> None:
    stage.start()

    def power_off() -> None:
        stage.when(share, victims[0])
        for node in victims:
            node.unplug()
        for node in victims:
            node.kill_containerd()
            node.kill()

    stage.update(power_off, judged=stage.others(*victims))


def _peer_off(stage: Stage) -> None:
    _powered_off(stage, [stage.nodes[1]], 0.4)


def _half_off(stage: Stage) -> None:
    _powered_off(stage, list(stage.nodes[len(stage.nodes) // 2 :]), 0.5)


def _hangs(stage: Stage) -> None:
    victim = stage.nodes[1]
    stage.start()

    def hang() -> None:
        stage.when(0.4, victim)
        assert victim.p2pd is not None
        victim.p2pd.send(signal.SIGSTOP)
        try:
            time.sleep(_HANG_S)
        finally:
            victim.p2pd.send(signal.SIGCONT)
        stage.recover("it is one of the site again", stage.all_know_all)

    stage.update(hang, timed=stage.others(victim))


def _told_to_stop(stage: Stage) -> None:
    victim = stage.nodes[1]
    stage.start()

    def stop() -> None:
        stage.when(0.5, victim)
        assert victim.p2pd is not None
        begun = time.monotonic()
        code = victim.p2pd.stop(_STOP_S + 5)
        took = time.monotonic() - begun
        stage.expect(code == 0, f"SIGTERM: exit code {code}")
        stage.expect(took <= _STOP_S, f"SIGTERM: {took:.1f} s until its end")
        stage.restart(victim)

    stage.update(stop, timed=stage.others(victim))
    stage.forget_content(victim)
    stage.update(nodes=[victim])
    began = log_events(victim.p2pd, "transfer.begins")
    stage.expect(any(event["had"] > 0 for event in began), "nothing of what it had was resumed")


def _two_on_one_store(stage: Stage) -> None:
    node = stage.nodes[0]
    stage.start([node])
    first = node.p2pd
    node.start_p2pd(
        {"mirror": {"listen": "127.0.0.1:7790"}, "lan": {"control": "0.0.0.0:7791", "swarm_port": 0}}
    )
    second, node.p2pd = node.p2pd, first
    assert second is not None
    try:
        code = second.wait(_REFUSED_S)
    except TimeoutError:
        code = second.kill()
    stage.expect(code == 1, f"the second daemon ended with {code}")
    stage.expect("in use by another process" in second.last_words(), f"it said: {second.last_words(1)}")
    stage.update(nodes=[node])


def _cloned(stage: Stage) -> None:
    first, clone = stage.nodes[:2]
    for node in stage.nodes:
        node.reset()
        (node.files / "p2pd").mkdir()
        node.start_containerd()
        node.use_mirror(stage.mirror)
    first.start_p2pd()
    first.wait_p2pd()
    shutil.copy(first.files / "p2pd" / "node-id", clone.files / "p2pd" / "node-id")
    for node in stage.nodes[1:]:
        node.start_p2pd()
    for node in stage.nodes:
        node.wait_containerd()
        node.wait_p2pd()
    stage.recover("all nodes know each other", stage.all_know_all)
    ids = {(node.files / "p2pd" / "node-id").read_text() for node in stage.nodes}
    stage.expect(len(ids) == len(stage.nodes), "two nodes still have one id")
    stage.update()


_RESUMES = "others are unharmed; afterwards only what it lacked is fetched"

ROWS = [
    Row(
        "kill-10",
        "kill -9 of a daemon at 10 %, and its restart",
        _RESUMES,
        _killed_at(0.1),
        Limits(1.05, lost=2),
    ),
    Row(
        "kill-50",
        "kill -9 of a daemon at 50 %, and its restart",
        _RESUMES,
        _killed_at(0.5),
        Limits(1.05, lost=2),
        in_suite=True,
    ),
    Row(
        "kill-95",
        "kill -9 of a daemon at 95 %, and its restart",
        _RESUMES,
        _killed_at(0.95),
        Limits(1.05, lost=2),
    ),
    Row(
        "kill-lone",
        "kill -9 at 50 % of the only node there is",
        "it resumes",
        _lone_killed,
        Limits(1.05, None, lost=6),
    ),
    Row("power-off", "a peer loses its power while it fetches and uploads", "others finish", _peer_off),
    Row("half-off", "half of the nodes lose their power at 50 %", "the rest finish", _half_off, Limits(1.25)),
    Row("hang", "a daemon hangs for 30 s (SIGSTOP)", "others finish, it rejoins", _hangs),
    Row("sigterm", "SIGTERM in mid-stream", "it stops within 10 s, and resumes", _told_to_stop, Limits(1.10)),
    Row("two-on-a-store", "a second daemon on one store", "it is refused in a clear line", _two_on_one_store),
    Row(
        "cloned-id",
        "two nodes with one id (a cloned disk)",
        "one takes a new id",
        _cloned,
        Limits(extra_s=None),
    ),
]
