"""The registry front end over real sockets: statuses and headers."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import structlog
import trio
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from p2pd.io.registry_app import build_app
from p2pd.model import errors
from p2pd.model.content import DOCKER_INDEX
from p2pd.model.reference import Repository
from tests.support.memory_content import MemoryContent
from tests.support.mirror import UPSTREAMS, client_of, mirror, port_of, raw_get, read_to_fin, serving

DATA = random.Random(7).randbytes(1_000_000)
MANIFEST = json.dumps({"schemaVersion": 2, "manifests": []}).encode()


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
