"""Rows: many clients, many blobs, and a clock that jumps."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import trio

from benchmarks.faults.row import Limits, Row
from benchmarks.faults.stage import Stage
from benchmarks.testbed import Node, TestbedError, synthetic_image
from benchmarks.testbed.node import ORIGIN
from p2pd.model.reference import Digest

__all__ = ["ROWS"]

_CLIENTS = 200
_BLOBS = 1000
_CONNECTIONS = 400
"""At once, of the 512 that a mirror takes."""

_REFUSED_SHARE = 0.2
"""Of many blobs, what an overloaded node may answer with 503 before headers, so that clients go to their next
host; of one, which comes by one transfer, nobody is refused."""

_MIB = 1 << 20
_MOST_RSS = 300 * _MIB
"""A client that is slow holds a chunk of 1 MiB at the most."""

_UNFAIR = 1.5
_CLOCK_S = 300.0
_FAKETIME = (
    Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"),
    Path("/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"),
)


async def _get(digest: Digest, name: str) -> float:
    """Read one blob from this node's mirror, hashed; the seconds it took. Raises ValueError."""
    begun = trio.current_time()
    stream = await trio.open_tcp_stream("127.0.0.1", 7780)
    async with stream:
        path = f"/v2/{name}/blobs/{digest}?ns={ORIGIN}"
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some(65536)
            if not data:
                raise ValueError(f"no answer: {head[:100]!r}")
            head += data
        top, _, body = head.partition(b"\r\n\r\n")
        if b" 200 " not in top.split(b"\r\n")[0] + b" ":
            raise ValueError(top.split(b"\r\n")[0].decode())
        hasher = hashlib.sha256(body)
        while data := await stream.receive_some(65536):
            hasher.update(data)
    if hasher.hexdigest() != digest.hex:
        raise ValueError(f"wrong or short body of {digest}")
    return trio.current_time() - begun


def _get_all(node: Node, digests: Sequence[Digest], name: str) -> tuple[list[float], list[str]]:
    """All at once: seconds of those that went well, the errors of the others."""
    times: list[float] = []
    errors: list[str] = []
    slots = trio.Semaphore(_CONNECTIONS)

    async def one(digest: Digest) -> None:
        try:
            async with slots:
                times.append(await _get(digest, name))
        except (OSError, ValueError, trio.BrokenResourceError) as error:
            errors.append(str(error) or type(error).__name__)

    async def main() -> None:
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                for digest in digests:
                    nursery.start_soon(one, digest)

    node.inside(lambda: trio.run(main))
    return times, errors


def _judge_crowd(
    stage: Stage, node: Node, times: list[float], errors: list[str], *, is_one_blob: bool = False
) -> None:
    failed = [error for error in errors if not error.startswith("HTTP/1.1 503")]
    stage.seen.pulls += len(times) + len(failed)
    stage.seen.pulls_failed += len(failed)
    stage.expect(not failed, f"{len(failed)} clients failed, the first: {failed[:1]}")
    refused = len(errors) - len(failed)
    most = 0 if is_one_blob else _REFUSED_SHARE * (len(times) + len(errors))
    stage.expect(refused <= most, f"{refused} clients were refused, more than {most:.0f}")
    assert node.p2pd is not None
    peak = node.p2pd.usage().peak_rss
    stage.expect(peak <= _MOST_RSS, f"{peak // _MIB} MiB of memory at the most")
    if times and is_one_blob:
        median = sorted(times)[len(times) // 2]
        stage.expect(
            max(times) <= max(_UNFAIR * median, 2.0), f"the slowest took {max(times):.1f} s of {median:.1f}"
        )


def _many_clients(stage: Stage) -> None:
    node = stage.nodes[0]
    image = synthetic_image(78, 8 * _MIB, 2)
    ref = stage.bed.push(image, name="crowd")
    stage.bed.warm_seeder(ref, image)
    stage.start([node])
    digest = max(image.blobs, key=lambda blob: blob.size).digest
    before = stage.bed.wan_bytes()
    _judge_crowd(stage, node, *_get_all(node, [digest] * _CLIENTS, "crowd"), is_one_blob=True)
    stage.seen.wan_ratio = (stage.bed.wan_bytes() - before).down / (4 * _MIB)


def _many_blobs(stage: Stage) -> None:
    node = stage.nodes[0]
    image = synthetic_image(79, _BLOBS * 16 * 1024, _BLOBS)
    ref = stage.bed.push(image, name="many")
    stage.bed.warm_seeder(ref, image)
    stage.bed.set_wan_rate(100_000_000)
    stage.start()
    digests = [blob.digest for blob in image.blobs]
    before = stage.bed.wan_bytes()
    times, errors = _get_all(node, digests, "many")
    _judge_crowd(stage, node, times, errors)
    stage.seen.wan_ratio = (stage.bed.wan_bytes() - before).down / image.blob_bytes


def _clock_jumps(hours: int) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        library = next((path for path in _FAKETIME if path.exists()), None)
        if library is None:
            raise TestbedError("libfaketime is not installed: apt-get install faketime")
        node = stage.nodes[1]
        told = stage.bed.outer.site / "clock"
        stage.bed.outer.outside(told).write_text("+0\n")
        stage.start(stage.others(node))
        node.start_containerd()
        node.use_mirror(stage.mirror)
        wrapper = ["env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={told}"]
        # The monotonic clock of a machine does not jump when its time of day is set.
        wrapper += ["FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "FAKETIME_CACHE_DURATION=1"]
        node.start_p2pd(wrapper=wrapper)
        node.wait_containerd()
        node.wait_p2pd()
        stage.site.wait_acquainted()

        def jump() -> None:
            stage.when(0.3, node)
            stage.bed.outer.outside(told).write_text(f"{hours:+}h\n")
            time.sleep(3)
            stage.recover("all know all", stage.all_know_all)

        stage.update(jump)
        ahead = _ahead_s(node)
        stage.expect(abs(ahead - hours * 3600) < _CLOCK_S, f"its clock went by {ahead:.0f} s: no fault")
        stage.forget_content(node)
        stage.update(nodes=[node])

    return play


def _ahead_s(node: Node) -> float:
    """Seconds by which the clock of a node's p2pd is ahead, by the last line of its log."""
    assert node.p2pd is not None
    told = re.findall(r'"timestamp": "([^"]+)"', node.p2pd.last_words(5))
    if not told:
        raise TestbedError(f"{node.name} says no time: {node.p2pd.last_words(1)}")
    return datetime.fromisoformat(told[-1]).timestamp() - time.time()


ROWS = [
    Row(
        "clients-200", "200 clients of one node at once", "bounded memory, fair", _many_clients, Limits(1.15)
    ),
    Row("blobs-1000", "1,000 blobs of one node at once", "bounded memory, fair", _many_blobs, Limits(1.25)),
    Row(
        "clock-forwards",
        "a node's clock jumps an hour forwards",
        "nothing expires or stalls",
        _clock_jumps(+1),
    ),
    Row(
        "clock-backwards",
        "a node's clock jumps an hour back",
        "nothing expires or stalls",
        _clock_jumps(-1),
    ),
]
