"""Rows: a peer lies, drips, floods, or speaks another version."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.row import Limits, Row
from benchmarks.faults.stage import Stage
from benchmarks.testbed import Process, TestbedError
from benchmarks.testbed.live_site import log_events, wait_until
from benchmarks.testbed.network import shaper

__all__ = ["ROWS"]

_REPOSITORY = Path(__file__).parents[2]
_CONNECTIONS = 1250  # to each of eight ports


def _start_garbage(stage: Stage, mode: str) -> Process:
    """Turn the last node to garbage."""
    bad = stage.nodes[-1]
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.faults.garbage_node"]
    command += [mode, bad.home / "garbage", stage.image.directory]
    garbage = stage.bed.outer.popen(command, bad.name, log=bad.home / "garbage.log", cwd=_REPOSITORY)
    stage.defer(garbage.kill)
    if not wait_until(lambda: "ready" in _said(garbage) or not garbage.is_running, 30):
        raise TestbedError(f"the node of garbage is not ready: {garbage.last_words()}")
    if not garbage.is_running:
        raise TestbedError(f"the node of garbage ended: {garbage.last_words()}")
    return garbage


def _beside(
    mode: str,
    *,
    strangers: int = 1,
    asked: str = "asked",
    seeder: bool = True,
    is_blamed: bool = False,
) -> Callable[[Stage], None]:
    """Pull beside a node of garbage. `asked`: what it must have been asked, or the row shows nothing.
    `is_blamed`: by at least one node, and nobody else by any."""

    def play(stage: Stage) -> None:
        honest = list(stage.nodes[:-1])
        garbage = _start_garbage(stage, mode)
        stage.start(honest, None if seeder else {"wan": {"seeders": []}}, strangers)
        stage.update(nodes=honest)
        stage.expect(any(line.startswith(asked) for line in _said(garbage)), f"it was never {asked}")
        if is_blamed:
            blamed = {event["host"] for node in honest for event in log_events(node.p2pd, "peer shunned")}
            stage.expect(blamed == {stage.nodes[-1].ip}, f"blamed are {sorted(blamed) or 'none'}")

    return play


def _said(process: Process) -> list[str]:
    assert process.log is not None
    return process.log.read_text(errors="replace").splitlines()


def _noise(stage: Stage) -> None:
    bad, honest = stage.nodes[-1], list(stage.nodes[:-1])
    stage.start(honest)
    targets = [f"{node.ip}:{port}" for node in honest for port in (7781, 7782)]
    targets += [f"{honest[0].ip}:7781"] * 2

    def flood() -> None:
        stage.when(0.1, honest[0])
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "benchmarks.faults.noise",
            str(_CONNECTIONS),
            *targets,
        ]
        noise = stage.bed.outer.popen(command, bad.name, log=bad.home / "noise.log", cwd=_REPOSITORY)
        stage.defer(noise.kill)
        stage.expect(noise.wait(120) == 0, f"the noise ended badly: {noise.last_words()}")
        stage.recover("the site is as it was", lambda: all(stage.peers_of(node) == 2 for node in honest))

    stage.update(flood, nodes=honest)


def _of_version(mode: str) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        honest = list(stage.nodes[:-1])
        _start_garbage(stage, mode)
        stage.start(honest)
        stage.update(nodes=honest)
        left_out = [node for node in honest if log_events(node.p2pd, "peer left out")]
        stage.expect(bool(left_out), "nobody says that it leaves the other version out")

    return play


def _wrong_tag(stage: Stage) -> None:
    """The tag's owner says that it points at a manifest which no upstream has. A seeder is asked directly."""
    honest = list(stage.nodes[:-1])
    garbage = _start_garbage(stage, "tag")
    stage.start(honest, {"wan": {"seeders": []}}, strangers=1)
    stage.update(nodes=honest)
    stage.expect("asked Resolve" in _said(garbage), "it never was the owner of the tag")


def _drip(stage: Stage) -> None:
    """What leaves the swarm port of the last node passes at 64 kbit/s, the rest as ever."""
    bad, rate = stage.nodes[-1], stage.bed.spec.lan_bit_s
    lines = [
        "qdisc replace dev eth0 root handle 1: htb default 10",
        f"class add dev eth0 parent 1: classid 1:10 htb rate {rate}bit",
        "class add dev eth0 parent 1: classid 1:20 htb rate 64kbit",
        "filter add dev eth0 parent 1: protocol ip u32 match ip sport 7782 0xffff flowid 1:20",
    ]
    restored = shaper("eth0", rate, "replace")
    stage.bed.outer.run(["tc", "-n", bad.name, "-batch", "-"], text="\n".join(lines) + "\n")
    stage.defer(lambda: stage.bed.outer.run(["tc", "-n", bad.name, "-batch", "-"], text=restored + "\n"))
    _beside("good", asked="asked Join")(stage)


_SLOWED = Limits(1.10, 15.0)
_SPOILED = Limits(1.05, 15.0, lost=5)
"""Until libtorrent knows the liar, pieces with a block of it are refused, and some are fetched meanwhile."""

ROWS = [
    Row(
        "peer-hashes",
        "a peer gives wrong piece hashes and fitting garbage",
        "the seeder's hashes count, nothing of it is taken",
        _beside("hashes"),
        _SLOWED,
    ),
    Row(
        "peer-hashes-alone",
        "the same on a site without a seeder",
        "what fits no sha256 is dropped, and peers are left out of the next attempt",
        _beside("hashes", seeder=False),
        Limits(1.6, 40.0),
    ),
    Row(
        "peer-pieces",
        "a peer gives garbage for pieces",
        "blamed, left out, and nobody else",
        _beside("pieces", is_blamed=True),
        _SPOILED,
        in_suite=True,
    ),
    Row(
        "peer-have",
        "a peer says it has everything, and gives nothing",
        "left out",
        _beside("have"),
        Limits(1.2, 15),
    ),
    Row("peer-drip", "a peer has everything, and gives 1 KB/s", "left out", _drip, Limits(1.2, 15)),
    Row(
        "peer-tag",
        "the owner of a tag lies about it",
        "pulls get the true image",
        _wrong_tag,
        Limits(1.2, 15),
    ),
    Row(
        "peer-noise",
        "10,000 connections and datagrams of garbage to every port",
        "memory is bounded",
        _noise,
        Limits(1.3, 10),
    ),
    Row(
        "peer-version",
        "a node speaks a newer protocol version",
        "it is left out, with a line",
        _of_version("newer"),
    ),
    Row(
        "peer-older",
        "a node speaks an older protocol version",
        "it is left out, with a line",
        _of_version("older"),
    ),
]
