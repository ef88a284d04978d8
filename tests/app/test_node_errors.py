"""A whole node before a registry that misbehaves: what the client is told, how soon, what stays behind."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Set
from pathlib import Path

import httpx
import pytest
import trio

from benchmarks.testbed.registry import (
    Behaviour,
    Exchange,
    FaultRegistry,
    redirect,
    reset,
    reset_body,
    short_body,
    stalled_body,
    status,
    wrong_bytes,
)
from p2pd.model.content import OCI_MANIFEST
from p2pd.model.layout import MANIFEST_LIMIT, MIB
from p2pd.model.reference import Digest, Tag
from tests.support.daemon import Daemon, node_config, open_daemon, open_files, told
from tests.support.waiting import until

pytestmark = pytest.mark.virtual_time

LAYER = "application/vnd.oci.image.layer.v1.tar"
SMALL = random.Random(1).randbytes(100_000)
LARGE = random.Random(2).randbytes(2 * MIB + 12_345)
AT_ONCE = 5.0
"""Seconds for what needs no waiting."""

HEADERS = 9.0
"""Seconds within which any answer begins."""


def manifest_of(*blobs: bytes) -> bytes:
    layers = [
        {
            "mediaType": LAYER,
            "digest": str(digest_of(blob)),
            "size": len(blob),
        }
        for blob in blobs
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers}).encode()


def digest_of(blob: bytes) -> Digest:
    return FaultRegistry().add_blob(blob)


@pytest.fixture
async def registry(nursery: trio.Nursery) -> FaultRegistry:
    registry = FaultRegistry()
    await nursery.start(registry.run)
    registry.add_blob(SMALL)
    registry.add_blob(LARGE)
    registry.add_manifest(manifest_of(SMALL, LARGE), Tag("v1"))
    return registry


@pytest.fixture
async def node(registry: FaultRegistry, tmp_path: Path) -> AsyncIterator[Daemon]:
    async with open_daemon(node_config(tmp_path, registry.url)) as daemon:
        yield daemon


async def get(node: Daemon, path: str, within: float = AT_ONCE) -> httpx.Response:
    with trio.fail_after(within):
        return await node.client.get(path)


async def leaves_nothing(
    node: Daemon, path: str, before: Set[str] = frozenset(), within: float = AT_ONCE
) -> None:
    """Ask again and again: neither files nor tasks nor descriptors grow."""
    await until(lambda: node.files() == before, AT_ONCE)
    tasks, files = node.tasks(), open_files()
    for _ in range(3):
        await get(node, path, within)
    await until(lambda: node.tasks() <= tasks, AT_ONCE)
    # One kept-alive connection to the origin, of which this process has both ends, may come and go.
    await until(lambda: open_files() <= files + 2, AT_ONCE)
    await until(lambda: node.files() == before, AT_ONCE)


# What the client asks wrongly.

HEX = "a" * 64
BAD_REQUESTS = [
    ("/v2/app/blobs/sha256:abc", 400, "DIGEST_INVALID"),
    (f"/v2/app/blobs/sha256:{HEX.upper()}", 400, "DIGEST_INVALID"),
    ("/v2/app/manifests/sha256:zz", 400, "DIGEST_INVALID"),
    (f"/v2/app/blobs/sha512:{HEX * 2}", 404, "BLOB_UNKNOWN"),
    ("/v2/App/manifests/v1", 400, "NAME_INVALID"),
    ("/v2/a//b/manifests/v1", 400, "NAME_INVALID"),
    ("/v2/a/%2e%2e/b/manifests/v1", 400, "NAME_INVALID"),
    ("/v2/app/manifests/.v1", 400, "TAG_INVALID"),
    ("/v2/app/manifests/%00", 400, "NAME_INVALID"),
    ("/v2/app/manifests/v1?ns=evil.example", 404, "NAME_UNKNOWN"),
    ("/v2/app/manifests/v1?ns=127.0.0.1:1", 404, "NAME_UNKNOWN"),
    ("/v2/app/manifests/v1?ns=a%20b%0a", 404, "NAME_UNKNOWN"),
    ("/v2/app/tags/list?n=many", 400, "PAGINATION_NUMBER_INVALID"),
    ("/v1/app", 404, "UNSUPPORTED"),
]


async def test_malformed_requests_are_refused_and_no_packet_leaves(
    node: Daemon, registry: FaultRegistry
) -> None:
    for path, code, name in BAD_REQUESTS:
        # By its raw path: httpx would tidy up what is to be malformed.
        url = node.client.base_url.copy_with(raw_path=path.encode())
        with trio.fail_after(AT_ONCE):
            response = await node.client.get(url)
        assert told(response) == (code, name), f"{path} {response.text}"
    assert registry.requests == []
    await leaves_nothing(node, BAD_REQUESTS[0][0])


@pytest.mark.parametrize(
    ("asked", "code"),
    [("bytes=9999999-", 416), ("bytes=5-2", 200), ("lines=1-2", 200), ("bytes=0-1,3-4", 200)],
)
async def test_ranges_that_make_no_sense(node: Daemon, asked: str, code: int) -> None:
    with trio.fail_after(AT_ONCE):
        response = await node.client.get(f"/v2/app/blobs/{digest_of(SMALL)}", headers={"Range": asked})
    assert response.status_code == code
    if code == 416:
        assert told(response) == (416, "SIZE_INVALID")
        assert response.headers["content-range"] == f"bytes */{len(SMALL)}"
    else:
        assert response.content == SMALL


# What the origin answers instead of content.

FAULTS: dict[str, tuple[Behaviour, int, str]] = {
    "401": (status(401), 403, "DENIED"),
    "401 basic": (status(401, {"WWW-Authenticate": 'Basic realm="x"'}), 403, "DENIED"),
    "403": (status(403), 403, "DENIED"),
    "404": (status(404), 404, "UNKNOWN"),
    "429": (status(429, {"Retry-After": "7"}), 503, "TOOMANYREQUESTS"),
    "500": (status(500), 503, "UNAVAILABLE"),
    "503": (status(503, {}, b"<html>busy</html>"), 503, "UNAVAILABLE"),
    "reset": (reset, 503, "UNAVAILABLE"),
    "loop": (redirect("/v2/loop/blobs/1"), 503, "UNAVAILABLE"),
    "ftp": (redirect("ftp://127.0.0.1/"), 503, "UNAVAILABLE"),
}


def path_of(registry: FaultRegistry, kind: str, number: int) -> str:
    """Content that nobody has asked for yet."""
    if kind in {"tag", "manifest"}:
        digest = registry.add_manifest(manifest_of(bytes([number])), Tag(f"v1.{number}"))
        return f"/v2/app/manifests/{digest if kind == 'manifest' else f'v1.{number}'}"
    body = (SMALL if kind == "small" else LARGE) + bytes([number])
    return f"/v2/app/blobs/{registry.add_blob(body)}"


def expected(kind: str, code: int, name: str) -> tuple[int, str]:
    unknown = "BLOB_UNKNOWN" if kind in {"small", "large"} else "MANIFEST_UNKNOWN"
    return code, unknown if name == "UNKNOWN" else name


@pytest.mark.parametrize("kind", ["tag", "manifest", "small", "large"])
async def test_refusals_of_the_origin(node: Daemon, registry: FaultRegistry, kind: str) -> None:
    for number, (fault, (behaviour, code, name)) in enumerate(FAULTS.items()):
        path = path_of(registry, kind, number)
        await node.settled()
        before = node.files()
        registry.fault("/v2/", behaviour)
        response = await get(node, path)
        assert told(response) == expected(kind, code, name), fault
        if fault == "429":
            assert response.headers["retry-after"] == "7"
        await leaves_nothing(node, path, before)
        registry.heal()
        assert (await get(node, path)).status_code == 200, fault


@pytest.mark.parametrize("kind", ["small", "large"])
async def test_refusals_when_only_the_bytes_are_asked_for(
    registry: FaultRegistry, tmp_path: Path, kind: str
) -> None:
    """As containerd asks: the size is known from the manifest, the first word about the blob is its GET."""
    async with open_daemon(node_config(tmp_path, registry.url)) as node:
        for number, (fault, (behaviour, code, name)) in enumerate(FAULTS.items()):
            path = path_of(registry, kind, number)
            size = len(registry.blobs[path.rpartition("/")[2]])
            layer = {"mediaType": LAYER, "digest": path.rpartition("/")[2], "size": size}
            registry.add_manifest(json.dumps({"layers": [layer]}).encode(), Tag(f"only.{number}"))
            # This answer is also what makes the node think well of the origin again.
            assert (await get(node, f"/v2/app/manifests/only.{number}")).status_code == 200
            held = node.files()
            registry.fault("/blobs/", behaviour)
            assert told(await get(node, path, HEADERS)) == expected(kind, code, name), fault
            await until(lambda held=held: node.files() == held, AT_ONCE)  # type: ignore[misc] # mypy sees no default
            registry.heal()


async def test_an_origin_that_never_answers(registry: FaultRegistry, tmp_path: Path) -> None:

    async def silence(exchange: Exchange) -> None:
        exchange.keep = False
        await exchange.stream.receive_some()  # until the client leaves

    registry.fault("/v2/", silence)
    async with open_daemon(node_config(tmp_path, registry.url)) as node:
        for path in ("/v2/app/manifests/v1", f"/v2/app/blobs/{digest_of(LARGE)}"):
            assert told(await get(node, path, HEADERS)) == (503, "UNAVAILABLE")
            await leaves_nothing(node, path, within=HEADERS)


# What the origin sends that is not what it should be.


async def test_a_manifest_over_the_limit(node: Daemon, registry: FaultRegistry) -> None:
    huge = b'{"schemaVersion": 2, "pad": "' + b"x" * MANIFEST_LIMIT + b'"}'
    digest = registry.add_manifest(huge, Tag("huge"))
    for reference in ("huge", str(digest)):
        assert told(await get(node, f"/v2/app/manifests/{reference}")) == (502, "MANIFEST_INVALID")
    await leaves_nothing(node, "/v2/app/manifests/huge")


async def test_a_manifest_that_is_another(node: Daemon, registry: FaultRegistry) -> None:
    digest = digest_of(b"{}")
    registry.manifests[str(digest)] = (OCI_MANIFEST, b'{"schemaVersion": 2}')
    path = f"/v2/app/manifests/{digest}"
    assert told(await get(node, path)) == (502, "MANIFEST_INVALID")
    await leaves_nothing(node, path)


async def test_a_manifest_of_another_length_than_announced(node: Daemon, registry: FaultRegistry) -> None:
    body = manifest_of(SMALL)
    digest = registry.add_manifest(body)

    async def short(exchange: Exchange) -> None:
        await exchange.head(200, {"Content-Length": str(len(body) + 10)})
        await exchange.raw(body)

    registry.fault("/manifests/", short)
    path = f"/v2/app/manifests/{digest}"
    assert told(await get(node, path)) == (503, "UNAVAILABLE")
    await leaves_nothing(node, path)


async def test_small_blobs_that_are_wrong(node: Daemon, registry: FaultRegistry) -> None:
    path = f"/v2/app/blobs/{digest_of(SMALL)}"
    for behaviour, answer in (
        (wrong_bytes, (502, "DIGEST_INVALID")),
        (short_body(500), (503, "UNAVAILABLE")),
        (reset_body(500), (503, "UNAVAILABLE")),
    ):
        registry.heal()
        registry.fault("GET /v2/app/blobs/", behaviour)
        assert told(await get(node, path)) == answer
        await leaves_nothing(node, path)
    registry.heal()
    assert (await get(node, path)).content == SMALL


async def read(node: Daemon, digest: Digest, within: float) -> tuple[int, bytes]:
    """Status, and as much of the body as came."""
    body = bytearray()
    with trio.fail_after(within):
        async with node.client.stream("GET", f"/v2/app/blobs/{digest}") as response:
            try:
                async for chunk in response.aiter_raw():
                    body += chunk
            except httpx.RemoteProtocolError:
                assert len(body) < int(response.headers["content-length"])
        return response.status_code, bytes(body)


async def test_a_large_blob_of_wrong_bytes_never_arrives_whole(
    registry: FaultRegistry, tmp_path: Path
) -> None:
    digest = digest_of(LARGE)
    registry.fault("GET /v2/app/blobs/", wrong_bytes)
    async with open_daemon(node_config(tmp_path, registry.url)) as node:
        code, body = await read(node, digest, AT_ONCE)
        assert code in {200, 502}
        assert len(body) < len(LARGE) or code == 502
        await until(lambda: node.files() == set(), AT_ONCE)
        response = await get(node, f"/v2/app/blobs/{digest}")
        assert response.status_code in {502, 503}, "at once, so that a client goes on to its next host"


@pytest.mark.parametrize("behaviour", [short_body(700_000), reset_body(700_000)], ids=["short", "reset"])
async def test_a_large_body_that_breaks_off_is_gone_on_with(
    node: Daemon, registry: FaultRegistry, behaviour: Behaviour
) -> None:
    registry.fault("GET /v2/app/blobs/", behaviour, times=1)
    assert await read(node, digest_of(LARGE), 20) == (200, LARGE)


async def test_a_large_body_that_stalls_ends_short_and_its_bytes_are_kept(
    registry: FaultRegistry, tmp_path: Path
) -> None:
    digest = digest_of(LARGE)
    registry.fault("GET /v2/app/blobs/", stalled_body(MIB))
    async with open_daemon(node_config(tmp_path, registry.url)) as node:
        code, body = await read(node, digest, 25 + AT_ONCE)
        assert code == 200
        assert LARGE.startswith(body)
        assert len(body) < len(LARGE)
        assert not [path for path in node.files() if path.startswith(("blobs", "staging", "tags"))]
        registry.heal()
    async with open_daemon(node_config(tmp_path, registry.url)) as node:
        assert await read(node, digest, 20) == (200, LARGE)
