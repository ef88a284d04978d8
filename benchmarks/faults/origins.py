"""Rows: the origin misbehaves before a seeder that holds nothing yet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.bad_origin import MODES, SMALL
from benchmarks.faults.row import Limits, Row
from benchmarks.faults.stage import Stage
from benchmarks.testbed import Node, Process, TestbedError
from benchmarks.testbed.live_site import log_events, wait_until
from benchmarks.testbed.network import ORIGIN_IP
from benchmarks.testbed.node import ORIGIN

__all__ = ["ROWS", "start_bad_origin"]

_PORT = 5001
_REPOSITORY = Path(__file__).parents[2]


def start_bad_origin(stage: Stage, mode: str) -> tuple[Process, dict[str, dict[str, object]]]:
    """Have a registry misbehave at the centre; the configuration that leads there."""
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.faults.bad_origin"]
    command += [mode, stage.image.directory, ORIGIN_IP, str(_PORT)]
    log = stage.bed.outer.site / "origin" / f"bad-{mode}.log"
    process = stage.bed.outer.popen(command, "origin", log=log, cwd=_REPOSITORY)
    stage.defer(process.kill)

    def listens() -> bool:
        return str(_PORT) in stage.bed.outer.run(["ss", "-Htln"], "origin").stdout

    if not wait_until(lambda: listens() or not process.is_running, 20) or not process.is_running:
        raise TestbedError(f"the bad origin did not start: {process.last_words()}")
    return process, {f'upstreams."{ORIGIN}"': {"url": f"http://{ORIGIN_IP}:{_PORT}"}}


def _begin_cold(stage: Stage, mode: str) -> Process:
    """The bad origin, a seeder that holds nothing yet, and the nodes, all started."""
    origin, changes = start_bad_origin(stage, mode)
    stage.bed.reset_seeder()
    stage.defer(stage.bed.reset_seeder)
    stage.bed.start_seeder(changes)
    stage.start(changes=changes)
    return origin


def _bad(mode: str, *, requests: int) -> Callable[[Stage], None]:
    """`requests`: most that the origin may see for one blob."""

    def play(stage: Stage) -> None:
        origin = _begin_cold(stage, mode)
        stage.update()
        assert origin.log is not None
        asked = origin.log.read_text().splitlines()
        for blob in stage.image.blobs:
            count = sum(line.startswith(str(blob.digest)) for line in asked)
            fewest = MODES[mode][1] if blob.size > SMALL else 0
            told = f"the origin was asked {count} times for {blob.digest}"
            stage.expect(count <= requests, f"{told}, not at most {requests}")
            stage.expect(count >= fewest, f"{told}, and could not fail {fewest} times")

    return play


def _lies(mode: str) -> Callable[[Stage], None]:
    """No pull can end well before the origin is mended; then all do, so that nothing wrong was kept."""

    def play(stage: Stage) -> None:
        origin = _begin_cold(stage, mode)
        told = stage.update(judged=[]).outcomes
        for node, outcome in zip(stage.nodes, told, strict=True):
            ended_well = outcome.code == 0 and not node.wrong_content(stage.image)
            stage.expect(ended_well or outcome.code != 0, f"{node.name}: wrong bytes and no error")
            stage.expect(ended_well or "digest" in outcome.message, f"{node.name}: {outcome.message[-200:]}")
        # A transfer under way would build on what it has, and fail once more.
        idle = wait_until(lambda: not any(_at_work(node) for node in stage.nodes), 90)
        stage.expect(idle, "transfers of wrong bytes did not end")
        origin.kill()
        start_bad_origin(stage, "honest")
        time.sleep(_REFUSED_S)
        for node in stage.nodes:
            stage.forget_content(node)
        stage.update()

    return play


def _at_work(node: Node) -> bool:
    ended = len(log_events(node.p2pd, "transfer.ends")) + len(log_events(node.p2pd, "transfer.fails"))
    return ended < len(log_events(node.p2pd, "transfer.begins"))


_REFUSED_S = 11.0
"""For so long a digest that failed in mid-body is answered 503."""

_MENDED = Limits(wan_ratio=2.1, extra_s=15.0)
"""The wrong bytes may cross the WAN once, and the right ones once."""

ROWS = [
    Row("origin-500", "the origin answers 500 three times", "one flight goes on", _bad("500", requests=4)),
    Row(
        "origin-429",
        "the origin answers 429, Retry-After 2",
        "it is heeded",
        _bad("429", requests=3),
        Limits(1.15, 8),
    ),
    Row(
        "origin-stall",
        "the origin stalls after its headers",
        "one flight asks again",
        _bad("stall", requests=2),
        Limits(1.15, 25),
    ),
    Row(
        "origin-drip",
        "two answers of the origin drip 1 KB/s",
        "one flight asks again",
        _bad("drip", requests=6),
        Limits(1.15, 40),
    ),
    Row("origin-cut", "the origin cuts at 99 %, twice", "one flight resumes", _bad("cut", requests=3)),
    Row(
        "origin-digest",
        "the origin gives wrong bytes",
        "none is kept or delivered",
        _lies("wrong-digest"),
        _MENDED,
    ),
    Row(
        "origin-length",
        "the origin gives a wrong length",
        "none is kept",
        _lies("wrong-length"),
        _MENDED,
    ),
    Row("origin-token", "the token expires in mid-blob", "a new one is got", _bad("token", requests=6)),
]
