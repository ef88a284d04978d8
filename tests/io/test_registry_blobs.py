"""Blobs through the registry front end, over real sockets: ranges, and how a body ends."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx
import pytest
import structlog
import trio

from p2pd.io.registry_app import build_app
from p2pd.model import errors
from p2pd.model.content import Holding
from p2pd.wire.response import HOLDING_HEADER
from tests.support.memory_content import MemoryContent
from tests.support.mirror import UPSTREAMS, client_of, mirror, port_of, raw_get, read_to_fin, serving
from tests.support.waiting import until

DATA = random.Random(7).randbytes(1_000_000)


async def test_blob_whole_head_and_ranges() -> None:
    content = MemoryContent()
    digest, blob = content.add_blob(DATA)
    path, size = f"/v2/a/blobs/{digest}", len(DATA)
    async with mirror(content) as client:
        whole = await client.get(path)
        head = await client.head(path, headers={"Range": "bytes=5-"})
        for answer in (whole, head):
            assert answer.status_code == 200
            assert answer.headers["content-length"] == str(size)
            assert answer.headers["accept-ranges"] == "bytes"
            assert answer.headers["docker-content-digest"] == str(digest)
            assert "transfer-encoding" not in answer.headers
            assert "content-encoding" not in answer.headers
        assert whole.content == DATA
        for wanted, start, stop in [
            ("0-", 0, size),
            ("65536-", 65536, size),
            ("10-19", 10, 20),
            ("-7", size - 7, size),
            (f"5-{size * 2}", 5, size),
        ]:
            answer = await client.get(path, headers={"Range": f"bytes={wanted}"})
            assert answer.status_code == 206
            assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
            assert answer.headers["content-length"] == str(stop - start)
            assert answer.content == DATA[start:stop]
        answer = await client.get(path, headers={"Range": f"bytes={size}-"})
        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{size}"
        answer = await client.get(path, headers={"Range": "bytes=0-1,5-6"})
        assert (answer.status_code, answer.content) == (200, DATA)
        etag = head.headers["etag"]
        answer = await client.get(path, headers={"Range": "bytes=0-1", "If-Range": etag})
        assert answer.status_code == 206
        answer = await client.get(path, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
        assert answer.status_code == 200
        answer = await client.get(path, headers={"If-None-Match": etag})
        assert answer.status_code == 200
    assert blob.open_streams == 0


async def test_a_mirror_that_cannot_know_says_nothing_of_how_much_is_here() -> None:
    content = MemoryContent()
    digest, _ = content.add_blob(DATA)
    async with mirror(content) as client:
        for method in ("GET", "HEAD"):
            assert HOLDING_HEADER not in (await client.request(method, f"/v2/a/blobs/{digest}")).headers


async def test_how_much_is_here_is_told_as_it_is_when_the_headers_go() -> None:
    content = MemoryContent()
    digest, blob = content.add_blob(DATA)
    said = [Holding.PULLING]
    app = build_app(content, upstreams=UPSTREAMS, holding=lambda _: said[-1])
    began, chunks = trio.Event(), blob.chunks

    async def late(start: int, stop: int) -> AsyncGenerator[bytes, None]:
        began.set()
        while said[-1] is Holding.PULLING:
            await trio.lowlevel.checkpoint()
        async with aclosing(chunks(start, stop)) as opened:
            async for chunk in opened:
                yield chunk

    blob.chunks = late  # type: ignore[method-assign] # its bytes come when it is whole
    answers: list[httpx.Response] = []

    async def get(client: httpx.AsyncClient) -> None:
        answers.append(await client.get(f"/v2/a/blobs/{digest}", headers={"Range": "bytes=5-9"}))

    with trio.fail_after(20):
        async with serving(app) as port, client_of(port) as client, trio.open_nursery() as nursery:
            nursery.start_soon(get, client)
            await began.wait()
            said.append(Holding.WHOLE)
    assert [(answer.status_code, answer.headers[HOLDING_HEADER]) for answer in answers] == [(206, "whole")]


async def test_an_empty_blob() -> None:
    content = MemoryContent()
    digest, _ = content.add_blob(b"")
    async with mirror(content) as client:
        answer = await client.get(f"/v2/a/blobs/{digest}", headers={"Range": "bytes=0-"})
        assert (answer.status_code, answer.headers["content-length"]) == (200, "0")


async def test_a_source_that_is_slow_to_begin_gets_its_headers_in_time() -> None:
    content = MemoryContent()
    digest, blob = content.add_blob(DATA)
    blob.stall_at = 0
    path = f"/v2/a/blobs/{digest}"
    async with mirror(content, deadline=0.05, stall=0.3) as client, client.stream("GET", path) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()
    assert blob.open_streams == 0


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.WrongContent("another size"), 502, "DIGEST_INVALID"),
        (errors.RateLimited("slow", 7), 503, "TOOMANYREQUESTS"),
    ],
)
async def test_a_source_that_fails_at_once_says_why(error: Exception, status: int, code: str) -> None:
    content = MemoryContent()
    digest, blob = content.add_blob(DATA)
    blob.error = error
    with structlog.testing.capture_logs() as logs:
        async with mirror(content) as client:
            answer = await client.get(f"/v2/a/blobs/{digest}")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (status, code)
    assert not [line for line in logs if line["log_level"] == "error"]


async def test_a_source_that_fails_at_once_is_a_503() -> None:
    content = MemoryContent()
    digest, blob = content.add_blob(DATA)
    blob.error = errors.Unavailable("all sources gone")
    async with mirror(content) as client:
        assert (await client.get(f"/v2/a/blobs/{digest}")).status_code == 503
        blob.error = None
        assert (await client.get(f"/v2/a/blobs/{digest}")).content == DATA


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (errors.Unavailable("all sources gone"), "warning"),
        (errors.WrongContent("not the digest"), "error"),
        (ZeroDivisionError("a bug"), "error"),
    ],
)
async def test_a_lost_source_ends_the_body_short_with_a_fin(error: Exception, level: str) -> None:
    content = MemoryContent()
    digest, blob = content.add_blob(DATA)
    blob.error, blob.fail_at = error, 300_000
    path = f"/v2/a/blobs/{digest}"
    with structlog.testing.capture_logs() as logs:
        async with mirror(content) as client:
            stream = await trio.open_tcp_stream("127.0.0.1", port_of(client))
            async with stream:
                await raw_get(stream, path)
                head, body = await read_to_fin(stream)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert f"content-length: {len(DATA)}".encode() in head
    assert body == DATA[:300_000]
    cut = [entry for entry in logs if entry["event"] == "blob body ended short"]
    assert len(cut) == 1
    assert cut[0]["log_level"] == level
    assert cut[0]["bytes"] == 300_000
    assert cut[0]["missing"] == len(DATA) - 300_000
    assert blob.open_streams == 0


async def test_fin_and_not_rst_though_bytes_of_the_client_are_unread() -> None:
    content = MemoryContent()
    digest, blob = content.add_blob(DATA)
    blob.stall_at = 900_000
    more = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n" * 100
    async with mirror(content, stall=0.1) as client:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(client))
        async with stream:
            await raw_get(stream, f"/v2/a/blobs/{digest}")
            await stream.send_all(more)
            received = 0
            while received < 900_000:
                received += len(await stream.receive_some(65536))
                # The server reads no more than the first of these before its answer ends.
                await stream.send_all(more)
            assert await read_to_fin(stream) == (b"", b"")


async def test_after_a_short_body_the_digest_rests_for_a_while() -> None:
    content = MemoryContent()
    digest, blob = content.add_blob(DATA)
    other, _ = content.add_blob(DATA[:1000])
    blob.error, blob.fail_at = errors.Unavailable("gone"), 500_000
    async with mirror(content, cooldown=0.2) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"/v2/a/blobs/{digest}")
        blob.error = None
        answer = await client.get(f"/v2/a/blobs/{digest}", headers={"Range": "bytes=500000-"})
        assert answer.status_code == 503
        assert (await client.get(f"/v2/a/blobs/{other}")).status_code == 200
        answer = await client.get(f"/v2/a/blobs/{digest}")
        while answer.status_code == 503:
            await trio.sleep(0.02)
            answer = await client.get(f"/v2/a/blobs/{digest}")
        assert answer.content == DATA


@pytest.mark.parametrize("fault", ["fewer", "more"])
async def test_content_of_another_length_is_never_passed_as_whole(fault: str) -> None:
    content = MemoryContent()
    digest, blob = content.add_blob(DATA)
    if fault == "fewer":
        blob.end_at = 600_000
    else:
        blob.excess = b"x"
    async with mirror(content) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"/v2/a/blobs/{digest}")
    assert blob.open_streams == 0


async def test_a_stall_is_cut() -> None:
    content = MemoryContent()
    digest, blob = content.add_blob(DATA)
    blob.stall_at = 200_000
    async with mirror(content, stall=0.05) as client:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(client))
        async with stream:
            await raw_get(stream, f"/v2/a/blobs/{digest}")
            _, body = await read_to_fin(stream)
    assert body == DATA[:200_000]


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_client_that_leaves_frees_the_stream_at_once(how: str) -> None:
    content = MemoryContent()
    digest, blob = content.add_blob(DATA)
    blob.stall_at = 100_000
    with structlog.testing.capture_logs() as logs:
        async with mirror(content) as client:
            stream = await trio.open_tcp_stream("127.0.0.1", port_of(client))
            await raw_get(stream, f"/v2/a/blobs/{digest}", "Range: bytes=0-\r\n")
            received = b""
            while not received.endswith(DATA[99_000:100_000]):
                received += await stream.receive_some(65536)
            assert blob.open_streams == 1, "all sent, and the source is being waited for"
            if how == "rst":
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
            await until(lambda: blob.open_streams == 0)
            assert (await client.get("/v2/")).status_code == 200
    assert {entry["log_level"] for entry in logs} <= {"debug"}
