"""Rows: the LAN and the WAN."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx

from benchmarks.faults.row import Limits, Row
from benchmarks.faults.stage import Stage
from benchmarks.testbed import Node, synthetic_image
from benchmarks.testbed.network import shaper
from benchmarks.testbed.node import ORIGIN

__all__ = ["ROWS"]

_PARTITION_S = 20.0
_CUT_S = 10.0
_ANSWER_S = 10.0


def _slow_uplink(stage: Stage) -> None:
    slow = stage.nodes[1]
    rate = stage.bed.spec.lan_bit_s

    def shape(bit_s: int) -> None:
        stage.bed.outer.run(
            ["tc", "-n", slow.name, "-batch", "-"], text=shaper("eth0", bit_s, "change") + "\n"
        )

    stage.start()
    shape(rate // 100)
    stage.defer(lambda: shape(rate))
    update = stage.update()
    limit = 1.2 * (stage.baseline_s or update.seconds)
    stage.expect(update.seconds <= limit, f"{update.seconds:.1f} s are more than 1.2 of {limit / 1.2:.1f} s")


def _partitioned(stage: Stage) -> None:
    half = len(stage.nodes) // 2
    stage.start()

    def part() -> None:
        stage.when(0.15)
        heals = [stage.cut_off(a, b) for a in stage.nodes[:half] for b in stage.nodes[half:]]
        time.sleep(_PARTITION_S)
        apart = stage.peers_of(stage.nodes[0]) == half - 1
        stage.expect(apart, "the halves knew each other all the time: no fault")
        for heal in heals:
            heal()

    stage.update(part)
    stage.recover("the halves know each other", stage.all_know_all)
    before = stage.seen.wan_ratio or 0.0
    late = stage.nodes[0]
    late.kill()
    late.reset()
    late.start_containerd()
    late.use_mirror(stage.mirror)
    stage.restart(late)
    late.wait_containerd()
    stage.site.wait_acquainted()
    stage.update(nodes=[late])
    again = (stage.seen.wan_ratio or 0.0) - before
    stage.expect(again < 0.02, f"{again:.2f} of the image crossed the WAN again after the partition")


def _no_multicast(stage: Stage) -> None:
    def flood(state: str) -> None:
        for node in stage.nodes:
            stage.bed.outer.run(
                ["bridge", "-n", "lan", "link", "set", "dev", f"p-{node.name}", "mcast_flood", state]
            )

    flood("off")
    stage.defer(lambda: flood("on"))
    addresses = [f"{node.ip}:7781" for node in stage.nodes]
    stage.start(changes={"lan": {"peers": addresses}})
    # What answers its multicast would show that nothing is blocked here.
    found = [one for one in _doctor(stage, stage.nodes[0]) if one["check"] == "multicast"]
    says = [f"{one['level']}: {one['says']}" for one in found]
    is_told = any(one["level"] != "ok" and "drops multicast" in one["says"] for one in found)
    stage.expect(is_told, f"doctor does not say that multicast is blocked: {says}")
    stage.update()


def _doctor(stage: Stage, node: Node) -> list[dict[str, str]]:
    """What `p2pd doctor` finds on a node."""
    program = Path(sys.executable).with_name("p2pd")
    command: list[str | Path] = [program, "doctor", "--json", "--config", node.home / "p2pd.toml"]
    document = json.loads(stage.bed.outer.run(command, node.name, check=False).stdout)
    findings: list[dict[str, str]] = document["findings"]
    return findings


def _address_changes(stage: Stage) -> None:
    moved = stage.nodes[1]
    other = "10.20.9.9"
    stage.start()

    def move() -> None:
        stage.when(0.3)
        for words in (["del", f"{moved.ip}/16"], ["add", f"{other}/16"]):
            stage.ip(moved, "addr", *words, "dev", "eth0")
        stage.ip(moved, "route", "replace", "default", "via", "10.20.0.1")
        stage.recover("it is one of the site again", lambda: stage.all_know_all() and _is_at(stage, other))

    def move_back() -> None:
        for words in (["del", f"{other}/16"], ["add", f"{moved.ip}/16"]):
            stage.ip(moved, "addr", *words, "dev", "eth0")
        stage.ip(moved, "route", "replace", "default", "via", "10.20.0.1")

    stage.defer(move_back)
    stage.update(move)


def _is_at(stage: Stage, address: str) -> bool:
    """Whether the other nodes' connections lead to an address."""
    node = stage.nodes[0]
    shown = stage.bed.outer.run(["ss", "-Htn", "state", "established", "dst", address], node.name)
    return address in shown.stdout


def _flaps(stage: Stage) -> None:
    node = stage.nodes[1]
    stage.start()

    def flap() -> None:
        stage.when(0.2)
        for _ in range(4):
            node.unplug()
            time.sleep(1.0)
            node.plug()
            time.sleep(1.0)
        stage.recover("it is one of the site again", stage.all_know_all)

    stage.update(flap)


_IN_FLIGHT = 8
"""Stripes that break off with the seeder: two at each of four nodes, of which nearly all may have come."""


def _seeder_restarts(stage: Stage) -> None:
    stage.start()

    def restart() -> None:
        stage.when_fetched(0.3, stage.nodes[0])
        assert stage.bed.seeder is not None
        stage.bed.seeder.kill()
        time.sleep(_CUT_S)
        stage.bed.start_seeder()

    stage.update(restart)


def _seeder_gone(stage: Stage) -> None:
    stage.start()

    def kill() -> None:
        stage.when_fetched(0.3, stage.nodes[0])
        assert stage.bed.seeder is not None
        stage.bed.seeder.kill()

    asked = {blob.digest: len(stage.site.origin_gets(blob.digest)) for blob in stage.image.blobs}
    stage.update(kill)
    asking: set[str] = set()
    for digest, before in asked.items():
        nodes = set(stage.site.origin_gets(digest)[before:])
        stage.expect(len(nodes) <= 1, f"{len(nodes)} nodes asked the origin for {digest}")
        asking |= nodes
    stage.expect(bool(asking), "nobody asked the origin: the seeder had given all before")


def _wan_cut(stage: Stage) -> None:
    stage.start()

    def cut() -> None:
        stage.when(0.4)
        stage.bed.cut_wan()
        time.sleep(_CUT_S)
        stage.bed.restore_wan()

    stage.update(cut)


def _wan_gone(stage: Stage) -> None:
    """One node holds the image when the WAN goes: all get it, and what nobody has fails fast."""
    first, *rest = stage.nodes
    other = synthetic_image(80, 8 << 20, 2)
    stage.bed.push(other, name="other")
    stage.start()
    for node in stage.nodes:  # A runtime that has the manifest goes on to the layers.
        node.http("GET", f"/v2/other/manifests/v1?ns={ORIGIN}").raise_for_status()
    stage.update(nodes=[first])
    stage.bed.cut_wan()
    came = stage.update(nodes=rest).wan_bytes
    stage.expect(came < 10_000, f"{came} bytes came over a WAN that is cut")
    layer = max(other.blobs, key=lambda blob: blob.size).digest
    for nobodys in (layer, f"sha256:{'0' * 64}"):
        path = f"/v2/other/blobs/{nobodys}?ns={ORIGIN}"
        with ThreadPoolExecutor(len(stage.nodes)) as pool:  # each takes the others for members of a swarm
            answers = list(pool.map(partial(_timed_get, path), stage.nodes))
        for answer, took in answers:
            code = answer.status_code
            stage.expect(code in {404, 503}, f"a blob nobody has was answered {code}")
            stage.expect(took <= _ANSWER_S, f"the answer for a blob nobody has took {took:.1f} s")
            stage.expect('"message"' in answer.text, f"the answer does not say why: {answer.text[:200]}")


def _timed_get(path: str, node: Node) -> tuple[httpx.Response, float]:
    begun = time.monotonic()
    answer = node.http("GET", path)
    return answer, time.monotonic() - begun


ROWS = [
    Row("slow-uplink", "a peer's uplink is 1/100 of the others'", "the site takes at most 1.2", _slow_uplink),
    Row(
        "partition",
        "the LAN falls in two halves for 20 s",
        "both go on, over the WAN if need be; healed, nothing crosses it again",
        _partitioned,
        Limits(2.05, 15.0),
    ),
    Row("no-multicast", "multicast is blocked", "static peers serve instead, doctor says so", _no_multicast),
    Row(
        "address-change",
        "a node's IP address changes",
        "it rejoins within 10 s",
        _address_changes,
        Limits(2.0, 20),
    ),
    Row("flap", "a node's interface flaps", "it rejoins within 10 s", _flaps, Limits(1.3, 10)),
    Row(
        "seeder-restart",
        "the seeder is killed, back after 10 s",
        "all resume",
        _seeder_restarts,
        Limits(1.05, 12, lost=_IN_FLIGHT),
    ),
    Row(
        "seeder-gone",
        "the seeder is killed for good",
        "one node fetches from the origin",
        _seeder_gone,
        Limits(1.05, 12, lost=_IN_FLIGHT),
        in_suite=True,
    ),
    Row("wan-cut", "the WAN is cut for 10 s", "all resume", _wan_cut, Limits(extra_s=_CUT_S + 5.0)),
    Row(
        "wan-gone",
        "the WAN is cut for good",
        "what any node holds is pulled; what none holds fails within 10 s, clearly",
        _wan_gone,
        in_suite=True,
    ),
]
