"""A whole node: what it does about rot on its disk, noise on its ports, TLS, and a seeder in trouble."""

from __future__ import annotations

import json
import os
import random
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import msgpack  # type: ignore[import-untyped]  # ships no types
import pytest
import trio

from benchmarks.testbed.registry import FaultRegistry, reset, silence, status, wrong_bytes
from p2pd.model.address import Address
from p2pd.model.errors import PeerProtocolError
from p2pd.model.layout import MIB
from p2pd.model.messages import Hello, Message, Ping, Pong, Query, QueryReply
from p2pd.model.reference import Digest, Tag
from p2pd.wire.codec import decode, encode
from p2pd.wire.frames import FRAME_LIMIT, FrameBuffer
from tests.support.certificate import make_certificate, server_context
from tests.support.daemon import Daemon, node_config, open_daemon, open_seeder, told
from tests.support.waiting import until

pytestmark = pytest.mark.virtual_time

SMALL = random.Random(3).randbytes(70_000)
LARGE = random.Random(4).randbytes(3 * MIB + 99)
MANIFEST = b'{"schemaVersion": 2, "layers": []}'
SOON = 10.0
"""Seconds: any answer has begun by then."""


@pytest.fixture
async def registry(nursery: trio.Nursery) -> FaultRegistry:
    registry = FaultRegistry()
    await nursery.start(registry.run)
    for body in (SMALL, LARGE):
        registry.add_blob(body)
    registry.add_manifest(MANIFEST, Tag("v1"))
    return registry


def digest_of(body: bytes) -> Digest:
    return FaultRegistry().add_blob(body)


async def get(node: Daemon, path: str) -> httpx.Response:
    with trio.fail_after(SOON):
        return await node.client.get(path)


async def read(node: Daemon, body: bytes) -> bytes:
    """What a client gets of this blob; at most a part of it where the body was cut."""
    came = bytearray()
    with trio.fail_after(SOON):
        async with node.client.stream("GET", f"/v2/app/blobs/{digest_of(body)}") as response:
            try:
                async for chunk in response.aiter_raw():
                    came += chunk
            except httpx.RemoteProtocolError:
                assert len(came) < len(body)
                return bytes(came)
            if response.status_code != 200:
                assert response.status_code in {502, 503}
                return b""
    assert len(came) == len(body)
    return bytes(came)


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 0x40]))
        os.fsync(file.fileno())


# Rot.


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("when", ["running", "stopped"])
async def test_a_rotten_blob_is_dropped_and_fetched_again(
    registry: FaultRegistry, tmp_path: Path, body: bytes, when: str
) -> None:
    config = node_config(tmp_path, registry.url)
    path = f"blobs/sha256/{digest_of(body).hex[:2]}/{digest_of(body).hex}"
    async with open_daemon(config) as node:
        assert await read(node, body) == body
        await node.settled()
        if when == "running":
            await retried_until_right(node, body, path)
    if when == "stopped":
        flip(tmp_path / "store" / path, len(body) - 10)
        async with open_daemon(config) as node:
            await retried_until_right(node, body, None)
    assert registry.count("GET /v2/app/blobs/") == 2


async def retried_until_right(node: Daemon, body: bytes, rotten: str | None) -> None:
    if rotten is not None:
        flip(node.store / rotten, len(body) // 2)
    came = await read(node, body)
    assert body.startswith(came), "short, but never wrong"
    # A blob whose body was cut answers 503 for ten seconds, so that a client that resumes goes elsewhere.
    with trio.fail_after(10 + SOON):
        while await read(node, body) != body:  # noqa: ASYNC110 - time itself is waited for
            await trio.sleep(1)


async def test_small_rot_is_fetched_again_unseen(registry: FaultRegistry, tmp_path: Path) -> None:
    digest = digest_of(MANIFEST)
    async with open_daemon(node_config(tmp_path, registry.url)) as node:
        for path, body in (
            (f"/v2/app/manifests/{digest}", MANIFEST),
            (f"/v2/app/blobs/{digest_of(SMALL)}", SMALL),
        ):
            assert (await get(node, path)).content == body
            flip(node.store / f"blobs/sha256/{digest_of(body).hex[:2]}/{digest_of(body).hex}", 5)
            assert (await get(node, path)).content == body


async def test_a_cut_file_and_a_torn_sidecar_at_start(registry: FaultRegistry, tmp_path: Path) -> None:
    config = node_config(tmp_path, registry.url)
    blob = tmp_path / "store" / f"blobs/sha256/{digest_of(LARGE).hex[:2]}/{digest_of(LARGE).hex}"
    async with open_daemon(config) as node:
        assert await read(node, LARGE) == LARGE
        await node.settled()
    with blob.open("r+b") as file:
        file.truncate(MIB)
    async with open_daemon(config) as node:
        assert await read(node, LARGE) == LARGE
        await node.settled()
    blob.with_name(blob.name + ".pieces").write_bytes(b"\0" * 100)
    async with open_daemon(config) as node:
        assert await read(node, LARGE) == LARGE
        await node.settled()
    assert registry.count("GET /v2/app/blobs/") == 2, "the sidecar is made again from the bytes"


# Noise on the control port.


def envelope(*, version: int = 1, size: int = 10) -> bytes:
    body: bytes = msgpack.packb([version, 1, 0, b"x" * size])
    return struct.pack(">I", len(body)) + body


NOISE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(1000),
    "truncated": encode(Hello("b" * 32, "test", 1, 1))[:-3],
    "half a length": b"\x00\x00",
    "oversized": struct.pack(">I", FRAME_LIMIT + 1) + b"x" * 1000,
    "huge": b"\xff\xff\xff\xff",
    "unknown version": envelope(version=99),
    "not a map": envelope(),
    "not msgpack": struct.pack(">I", 4) + b"\xc1\xc1\xc1\xc1",
    "nested": struct.pack(">I", 1000) + b"\x91" * 1000,
    "request before hello": encode(Ping(), 1),
}


async def test_the_control_port_survives_noise(registry: FaultRegistry, tmp_path: Path) -> None:
    async with open_daemon(node_config(tmp_path, registry.url)) as node:
        assert (await get(node, "/v2/")).status_code == 200
        tasks = node.tasks()
        for name, noise in NOISE.items():
            with trio.fail_after(SOON):
                stream = await trio.open_tcp_stream("127.0.0.1", node.control_port)
                async with stream:
                    await stream.send_all(noise)
                    await stream.send_eof()
                    while await _more(stream):
                        pass
            assert (await get(node, "/v2/")).status_code == 200, name
        await until(lambda: node.tasks() <= tasks, SOON)
        await _is_a_good_peer(node.control_port)
        # After its Hello a peer is still not believed to speak the protocol.
        for name, noise in NOISE.items():
            with trio.fail_after(SOON):
                stream = await trio.open_tcp_stream("127.0.0.1", node.control_port)
                async with stream:
                    await stream.send_all(encode(Hello("c" * 32, "test", 1, 1)) + noise)
                    await stream.send_eof()
                    while await _more(stream):
                        pass
            assert (await get(node, "/v2/")).status_code == 200, name
        await _is_a_good_peer(node.control_port)


async def _more(stream: trio.SocketStream) -> bool:
    try:
        return bool(await stream.receive_some())
    except trio.BrokenResourceError:
        return False


async def _is_a_good_peer(port: int) -> None:
    buffer = FrameBuffer(FRAME_LIMIT)
    with trio.fail_after(SOON):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(encode(Hello("d" * 32, "test", 1, 1)))
            await stream.send_all(encode(Ping(), 1) + encode(Query(digest_of(SMALL)), 2))
            replies: list[Message | None] = []
            while len(replies) < 3:
                while (frame := buffer.next_frame()) is None:
                    data = await stream.receive_some()
                    if not data:
                        raise PeerProtocolError("it closed the connection")
                    buffer.feed(data)
                replies.append(decode(frame).message)
    assert isinstance(replies[0], Hello)
    assert Pong() in replies
    assert QueryReply(None, None) in replies


# TLS.


async def test_an_origin_without_a_trusted_certificate(nursery: trio.Nursery, tmp_path: Path) -> None:
    certificate = await trio.to_thread.run_sync(make_certificate, tmp_path)
    registry = FaultRegistry()
    await nursery.start(registry.run, server_context(certificate))
    digest = registry.add_blob(SMALL)
    path = f"/v2/app/blobs/{digest}"
    async with open_daemon(node_config(tmp_path / "a", registry.url)) as node:
        response = await get(node, path)
        assert told(response) == (503, "UNAVAILABLE")
        assert "set ca_file of this upstream" in response.text
        assert node.files() == set()
    plain = registry.url.replace("https", "http")
    async with open_daemon(node_config(tmp_path / "b", plain)) as node:
        assert told(await get(node, path)) == (503, "UNAVAILABLE")
    assert registry.requests == []
    trusted = node_config(tmp_path / "c", registry.url, ca_file=str(tmp_path / "cert.pem"))
    async with open_daemon(trusted) as node:
        assert (await get(node, path)).content == SMALL


# A seeder in between.


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (401, (403, "DENIED")),
        (403, (403, "DENIED")),
        (404, (404, "UNKNOWN")),
        (429, (503, "TOOMANYREQUESTS")),
        (500, (503, "UNAVAILABLE")),
    ],
)
async def test_refusals_of_the_origin_through_a_seeder(
    registry: FaultRegistry,
    tmp_path: Path,
    code: int,
    answer: tuple[int, str],
) -> None:
    registry.fault("/v2/", status(code))
    async with open_seeder(tmp_path / "seeder", registry.url) as url:
        config = node_config(tmp_path / "node", registry.url, seeders=[url], direct=False)
        async with open_daemon(config) as node:
            for path, unknown in (
                ("/v2/app/manifests/v1", "MANIFEST_UNKNOWN"),
                (f"/v2/app/blobs/{digest_of(SMALL)}", "BLOB_UNKNOWN"),
                (f"/v2/app/blobs/{digest_of(LARGE)}", "BLOB_UNKNOWN"),
            ):
                name = unknown if answer[1] == "UNKNOWN" else answer[1]
                # While that registry is thought to be down the node says so, and not why.
                assert told(await get(node, path)) in {(answer[0], name), (503, "UNAVAILABLE")}
            assert f'p2pd_source_up{{source="{url}"}} 1.0' in (await get(node, "/metrics")).text
            assert node.files() == set()


async def test_wrong_bytes_through_a_seeder_never_arrive(registry: FaultRegistry, tmp_path: Path) -> None:
    registry.fault("GET /v2/app/blobs/", wrong_bytes)
    async with open_seeder(tmp_path / "seeder", registry.url) as url:
        config = node_config(tmp_path / "node", registry.url, seeders=[url], direct=False)
        async with open_daemon(config) as node:
            small = await get(node, f"/v2/app/blobs/{digest_of(SMALL)}")
            assert told(small) == (502, "DIGEST_INVALID")
            assert len(await read(node, LARGE)) < len(LARGE)
            await until(lambda: not [f for f in node.files() if not f.startswith("partial")], SOON)


async def test_wrong_bytes_through_a_seeder_are_not_fetched_from_the_origin_too(
    registry: FaultRegistry, tmp_path: Path
) -> None:
    registry.fault("GET /v2/app/blobs/", wrong_bytes)
    async with (
        open_seeder(tmp_path / "seeder", registry.url) as url,
        open_daemon(node_config(tmp_path / "node", registry.url, seeders=[url])) as node,
    ):
        assert len(await read(node, LARGE)) < len(LARGE)
        metrics = (await get(node, "/metrics")).text
        assert f'p2pd_wan_bytes_total{{source="{url}"}}' in metrics
        assert 'p2pd_wan_bytes_total{source="origin"}' not in metrics


async def test_a_hung_seeder_is_no_source_for_anybody_though_others_wait_for_it_too(
    registry: FaultRegistry, tmp_path: Path
) -> None:
    digest = digest_of(LARGE)
    layer = {"mediaType": "application/x", "digest": str(digest), "size": len(LARGE)}
    registry.add_manifest(json.dumps({"schemaVersion": 2, "layers": [layer]}).encode(), Tag("hung"))
    config = partial(node_config, origin=registry.url, seeders=[registry.url], direct=False)
    async with open_daemon(config(tmp_path / "a")) as one:
        known = config(tmp_path / "b")
        lan = replace(known.lan, peers=(Address("127.0.0.1", one.control_port),))
        async with open_daemon(replace(known, lan=lan)) as other:
            for node in (one, other):
                await _knows_a_peer(node)
                assert (await get(node, "/v2/app/manifests/hung")).status_code == 200
            registry.fault("", silence)

            async def refused(node: Daemon) -> None:
                response = await get(node, f"/v2/app/blobs/{digest}")
                assert told(response) == (503, "UNAVAILABLE")

            async with trio.open_nursery() as nursery:
                for node in (one, other):
                    nursery.start_soon(refused, node)


async def _knows_a_peer(node: Daemon) -> None:
    with trio.fail_after(SOON):
        while "p2pd_peers 1.0" not in (await get(node, "/metrics")).text:  # noqa: ASYNC110 - asked over HTTP
            await trio.sleep(0.1)


async def test_a_dead_seeder_costs_a_step_of_the_ladder(registry: FaultRegistry, tmp_path: Path) -> None:
    dead = FaultRegistry()
    async with trio.open_nursery() as nursery:
        await nursery.start(dead.run)
        dead.fault("/", reset)
        config = node_config(tmp_path, registry.url, seeders=[dead.url])
        async with open_daemon(config) as node:
            assert (await get(node, "/v2/app/manifests/v1")).content == MANIFEST
            assert await read(node, SMALL) == SMALL
            assert await read(node, LARGE) == LARGE
            metrics = (await get(node, "/metrics")).text
            assert f'p2pd_source_up{{source="{dead.url}"}} 0.0' in metrics
        nursery.cancel_scope.cancel()
