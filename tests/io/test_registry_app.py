"""The registry front end over real sockets: statuses, headers, and how a body ends."""

from __future__ import annotations

import json
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
import structlog
import trio
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from p2pd.io.registry_app import build_app
from p2pd.io.serve import serve
from p2pd.model import errors
from p2pd.model.content import DOCKER_INDEX
from p2pd.model.reference import Repository
from p2pd.wire.registry_api import Upstreams
from tests.support.memory_content import MemoryContent
from tests.support.waiting import until

UPSTREAMS = Upstreams({"ghcr.io": "ghcr.io"}, default="docker.io")
DATA = random.Random(7).randbytes(1_000_000)
MANIFEST = json.dumps({"schemaVersion": 2, "manifests": []}).encode()


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
            await serve(app, host="127.0.0.1", port=0, graceful_s=1, task_status=task_status)

        _, port = await nursery.start(start)
        yield port
        nursery.cancel_scope.cancel()


def client_of(port: int) -> httpx.AsyncClient:
    """It reads no CAs, which takes longer than most tests here: the mirror speaks plain HTTP."""
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=False)


@asynccontextmanager
async def mirror(content: MemoryContent, **settings: float) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(content, upstreams=UPSTREAMS, **settings)  # type: ignore[arg-type] # times only
    with trio.fail_after(20):
        async with serving(app) as port, client_of(port) as client:
            yield client


def port_of(client: httpx.AsyncClient) -> int:
    assert client.base_url.port is not None
    return client.base_url.port


async def raw_get(stream: trio.SocketStream, path: str, headers: str = "") -> None:
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())


async def read_to_fin(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    """Head and body up to the server's FIN. An RST raises trio.BrokenResourceError."""
    received = b""
    while data := await stream.receive_some(65536):
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


async def test_base_check_and_unknown_paths() -> None:
    async with mirror(MemoryContent()) as client:
        for path in ("/v2/", "/v2"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert "www-authenticate" not in answer.headers
        assert (await client.head("/v2/")).status_code == 200
        assert (await client.get("/")).status_code == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_manifest_headers(method: str) -> None:
    content = MemoryContent()
    manifest = content.add_manifest("v1", MANIFEST, DOCKER_INDEX)
    digest = str(manifest.descriptor.digest)
    async with mirror(content) as client:
        for reference in ("v1", digest):
            answer = await client.request(method, f"/v2/a/b/manifests/{reference}", params={"ns": "ghcr.io"})
            assert answer.status_code == 200
            assert answer.headers["content-type"] == DOCKER_INDEX
            assert answer.headers["content-length"] == str(len(MANIFEST))
            assert answer.headers["docker-content-digest"] == digest
            assert "content-encoding" not in answer.headers
            assert "transfer-encoding" not in answer.headers
            assert "warning" not in answer.headers
            assert answer.content == (MANIFEST if method == "GET" else b"")
    assert content.calls[0] == ("manifest", Repository("ghcr.io", "a/b"), "v1")


async def test_manifest_range_and_staleness() -> None:
    content = MemoryContent()
    content.manifests["v1"] = replace(content.add_manifest("v1", MANIFEST), stale=True)
    async with mirror(content) as client:
        answer = await client.get("/v2/a/manifests/v1", headers={"Range": "bytes=0-"})
        assert answer.status_code == 206
        assert answer.content == MANIFEST
        assert answer.headers["content-range"] == f"bytes 0-{len(MANIFEST) - 1}/{len(MANIFEST)}"
        assert answer.headers["p2pd-stale"] == "true"
        assert answer.headers["warning"] == '110 - "Response is Stale"'
        answer = await client.get("/v2/a/manifests/v1", headers={"Range": "bytes=5-8"})
        assert answer.content == MANIFEST[5:9]


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


async def test_an_empty_blob() -> None:
    content = MemoryContent()
    digest, _ = content.add_blob(b"")
    async with mirror(content) as client:
        answer = await client.get(f"/v2/a/blobs/{digest}", headers={"Range": "bytes=0-"})
        assert (answer.status_code, answer.headers["content-length"]) == (200, "0")


async def test_tags_and_referrers() -> None:
    content = MemoryContent()
    digest, _ = content.add_blob(DATA)
    async with mirror(content) as client:
        answer = await client.get("/v2/a/tags/list", params={"n": "2", "ns": "docker.io"})
        assert answer.json()["tags"] == ["1", "2"]
        assert answer.links["next"]["url"] == "/v2/a/tags/list?n=2&last=2&ns=docker.io"
        answer = await client.get(f"/v2/a/referrers/{digest}", params={"artifactType": "x/y"})
        assert answer.headers["content-type"] == "application/vnd.oci.image.index.v1+json"
        assert answer.headers["oci-filters-applied"] == "artifactType"
    repository = Repository("docker.io", "library/a")
    assert content.calls == [("tags", repository, "n=2"), ("referrers", repository, f"{digest} x/y")]


async def test_a_list_from_memory_is_marked() -> None:
    content = MemoryContent(stale=True)
    digest, _ = content.add_blob(DATA)
    async with mirror(content) as client:
        for path in ("tags/list", f"referrers/{digest}"):
            answer = await client.get(f"/v2/a/{path}", params={"ns": "docker.io"})
            assert answer.headers["p2pd-stale"] == "true"
            assert answer.headers["warning"].startswith("110")


@pytest.mark.parametrize("kind", ["manifest", "blob"])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.NotFound("gone"), 404, None),
        (errors.Denied("no"), 403, "DENIED"),
        (errors.RateLimited("slow", 7), 503, "TOOMANYREQUESTS"),
        (errors.Unavailable("down"), 503, "UNAVAILABLE"),
        (errors.PeerUnavailable("left"), 503, "UNAVAILABLE"),
        (errors.StoreFull("full"), 503, "UNAVAILABLE"),
        (errors.WrongContent("wrong"), 502, None),
        (ZeroDivisionError("a bug"), 503, "UNAVAILABLE"),
    ],
)
async def test_errors_before_headers(kind: str, error: Exception, status: int, code: str | None) -> None:
    content = MemoryContent(errors={kind: error})
    digest, _ = content.add_blob(DATA)
    path = f"/v2/a/{kind}s/{digest}"
    with structlog.testing.capture_logs() as logs:
        async with mirror(content) as client:
            answer = await client.get(path, headers={"Authorization": "Basic c2VjcmV0OnNlY3JldA=="})
            head = await client.head(path)
    assert answer.status_code == head.status_code == status
    found = answer.json()["errors"][0]["code"]
    assert found == (code or {404: f"{kind.upper()}_UNKNOWN"}.get(status, found))
    assert "www-authenticate" not in answer.headers
    assert answer.headers.get("retry-after") == ("7" if code == "TOOMANYREQUESTS" else None)
    assert "c2VjcmV0" not in str(logs) + str(content.calls)
    assert not any("exc_info" in entry for entry in logs)


async def test_upstreams_not_configured_are_never_asked() -> None:
    content = MemoryContent()
    async with mirror(content) as client:
        answer = await client.get("/v2/a/manifests/v1", params={"ns": "evil.example"})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "NAME_UNKNOWN")
    assert content.calls == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_push_is_refused(method: str) -> None:
    async with mirror(MemoryContent()) as client:
        answer = await client.request(method, "/v2/a/blobs/uploads/", content=b"x" * 300_000)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD"
        assert answer.json()["errors"][0]["code"] == "UNSUPPORTED"


@pytest.mark.parametrize("kind", ["manifest", "blob"])
async def test_headers_come_within_the_deadline(kind: str) -> None:
    content = MemoryContent(hanging={kind})
    digest, _ = content.add_blob(DATA)
    async with mirror(content, deadline=0.05) as client:
        answer = await client.get(f"/v2/a/{kind}s/{digest}")
        assert answer.status_code == 503


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


async def test_keep_alive_and_extra_routes() -> None:
    async def hello(request: object) -> PlainTextResponse:
        return PlainTextResponse("hello")

    content = MemoryContent()
    digest, _ = content.add_blob(DATA)
    app = build_app(content, upstreams=UPSTREAMS, extra_routes=[Route("/metrics", hello)])
    async with serving(app) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            for _ in range(3):
                await raw_get(stream, "/metrics")
                answer = b""
                while not answer.endswith(b"hello"):
                    answer += await stream.receive_some(65536)
                assert answer.startswith(b"HTTP/1.1 200 ")
            await raw_get(stream, f"/v2/a/blobs/{digest}", "Connection: close\r\n")
            _, body = await read_to_fin(stream)
            assert body == DATA


class Seen:
    """Notes what an observer is told."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, int, bool, str]] = []

    def answered(
        self, kind: str, code: int, first_byte: float | None, error: errors.P2pdError | None
    ) -> None:
        self.answers.append((kind, code, first_byte is not None, type(error).__name__))


async def test_every_answer_is_seen_once() -> None:
    content, seen = MemoryContent(), Seen()
    manifest = content.add_manifest("v1", MANIFEST)
    digest, _ = content.add_blob(DATA)
    app = build_app(content, upstreams=UPSTREAMS, observer=seen)
    async with serving(app) as port, client_of(port) as client:
        await client.get("/v2/")
        await client.get("/v2/a/manifests/v1")
        await client.head(f"/v2/a/manifests/{manifest.descriptor.digest}")
        await client.get(f"/v2/a/blobs/{digest}", headers={"Range": "bytes=5-6"})
        await client.get(f"/v2/a/blobs/sha256:{'0' * 64}")
        await client.post("/v2/a/blobs/uploads/")
    assert seen.answers == [
        ("base", 200, True, "NoneType"),
        ("tag", 200, True, "NoneType"),
        ("manifest", 200, True, "NoneType"),
        ("blob", 206, True, "NoneType"),
        ("blob", 404, True, "NotFound"),
        ("other", 405, True, "ApiError"),
    ]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\r\n\r\n\x00\xff",
        b"GET\r\n\r\n",
        b"GET /v2/%ff%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v2/a/manifests/v1?ns=%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    ],
)
async def test_garbage_is_answered_or_hung_up_on(garbage: bytes) -> None:
    with structlog.testing.capture_logs() as logs:
        async with mirror(MemoryContent()) as client:
            stream = await trio.open_tcp_stream("127.0.0.1", port_of(client))
            async with stream:
                await stream.send_all(garbage)
                await stream.send_eof()
                head, _ = await read_to_fin(stream)
                assert head == b"" or head.split()[1] in {b"400", b"403", b"404", b"405", b"431", b"505"}
            assert (await client.get("/v2/")).status_code == 200
    assert not [entry for entry in logs if entry["log_level"] == "error"]
