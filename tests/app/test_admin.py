"""The admin API of a whole node, over its real socket."""

from __future__ import annotations

import json
import random
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from benchmarks.testbed.registry import FaultRegistry, status, wrong_bytes
from p2pd.model.content import OCI_INDEX, OCI_MANIFEST
from p2pd.model.layout import MIB
from p2pd.model.reference import Digest, Tag
from tests.support.admin import admin_client, fits, lines, schema_for
from tests.support.daemon import Daemon, node_config, open_daemon

CONFIG = b'{"architecture":"amd64","os":"linux"}'
SMALL = random.Random(1).randbytes(100_000)
LARGE = random.Random(2).randbytes(2 * MIB + 12_345)
TOTAL = len(CONFIG) + len(SMALL) + len(LARGE)


def entry(digest: Digest, body: bytes, **more: object) -> dict[str, object]:
    return {"mediaType": "application/octet-stream", "digest": str(digest), "size": len(body), **more}


def add_image(registry: FaultRegistry, *tags: Tag) -> tuple[Digest, bytes]:
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": entry(registry.add_blob(CONFIG), CONFIG),
        "layers": [entry(registry.add_blob(body), body) for body in (SMALL, LARGE)],
    }
    body = json.dumps(manifest).encode()
    return registry.add_manifest(body, *tags), body


def add_index(registry: FaultRegistry, tag: Tag) -> None:
    """One platform that is there, one whose content the registry does not have."""
    digest, body = add_image(registry)
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            entry(Digest("0" * 64), b"", platform={"os": "linux", "architecture": "s390x"}),
            entry(digest, body, platform={"os": "linux", "architecture": "arm64", "variant": "v8"}),
        ],
    }
    registry.add_manifest(json.dumps(index).encode(), tag, media_type=OCI_INDEX)


@pytest.fixture
async def registry(nursery: trio.Nursery) -> FaultRegistry:
    registry = FaultRegistry()
    await nursery.start(registry.run)
    add_image(registry, Tag("v1"))
    add_index(registry, Tag("multi"))
    return registry


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "p2pd.sock"


@pytest.fixture
async def node(registry: FaultRegistry, tmp_path: Path, socket: Path) -> AsyncIterator[Daemon]:
    async with open_daemon(node_config(tmp_path, registry.url, socket=str(socket))) as daemon:
        yield daemon


@pytest.fixture
async def admin(node: Daemon, socket: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with admin_client(socket) as client:
        yield client


async def pull(admin: httpx.AsyncClient, reference: str, **order: str) -> list[dict[str, Any]]:
    return lines(await admin.post("/v1/pull", json={"reference": reference, **order}))


async def test_only_owner_and_group_may_use_the_socket(node: Daemon, socket: Path) -> None:
    mode = (await trio.Path(socket).stat()).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660


async def test_every_answer_is_as_the_document_says(admin: httpx.AsyncClient, node: Daemon) -> None:
    document = (await admin.get("/v1/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    orders: dict[str, list[dict[str, Any]]] = {
        "/v1/pull": [{"reference": "reg.test/app:v1"}, {"reference": "reg.test/none:v1"}, {"reference": 5}],
        "/v1/gc": [{}, {"dry_run": True}, {"dry_run": 1}],
        "/v1/verify": [{}, {"digests": ["sha256:" + "0" * 64]}, {"digests": ["x"]}],
    }
    asked = 0
    for path, methods in document["paths"].items():
        for method in methods:
            for order in orders[path] if method == "post" else [None]:
                response = await admin.request(method.upper(), path, json=order)
                if response.status_code == 200:
                    schema = schema_for(document, method, path)
                    is_stream = "ndjson" in response.headers["content-type"]
                    answers = lines(response) if is_stream else [response.json()]
                else:
                    schema, answers = schema_for(document, method, path, "default"), [response.json()]
                assert answers
                for answer in answers:
                    fits(answer, schema, document, path)
                asked += 1
    assert asked >= 10
    assert set(orders) == {path for path, methods in document["paths"].items() if "post" in methods}


async def test_a_pull_is_told_and_ends_with_everything_held(
    admin: httpx.AsyncClient, node: Daemon, registry: FaultRegistry
) -> None:
    events = await pull(admin, "app:v1")
    assert events[0]["event"] == "resolved"
    assert [event["size"] for event in events if event["event"] == "plan"] == [
        len(CONFIG),
        len(SMALL),
        len(LARGE),
    ]
    assert sorted(event["size"] for event in events if event["event"] == "held") == sorted(
        (len(CONFIG), len(SMALL), len(LARGE))
    )
    assert (events[-1]["event"], events[-1]["size"]) == ("done", TOTAL)
    await node.settled()
    asked = registry.count("GET /v2/app/blobs/")
    status = (await admin.get("/v1/status")).json()
    assert (status["blobs"], status["transfers"]) == (4, [])
    assert status["since_start"]["origin"] >= TOTAL
    assert status["since_start"]["given"] == 0
    assert status["wan_spared_total"] == -status["since_start"]["origin"]
    assert (await pull(admin, "reg.test/app"[9:] + ":v1"))[-1]["event"] == "done"
    assert registry.count("GET /v2/app/blobs/") == asked
    served = await node.client.get(f"/v2/app/blobs/{events[3]['digest']}")
    assert len(served.content) == len(LARGE)
    assert (await admin.get("/v1/status")).json()["today"]["given"] == len(LARGE)


async def test_images_and_blobs(admin: httpx.AsyncClient, node: Daemon) -> None:
    assert (await admin.get("/v1/images")).json() == {"images": []}
    await pull(admin, "app:v1")
    await pull(admin, "app:multi", platform="linux/arm64")
    images = (await admin.get("/v1/images")).json()["images"]
    assert [(image["tag"], image["platforms"], image["complete"]) for image in images] == [
        ("multi", ["linux/arm64/v8"], True),
        ("v1", [], True),
    ]
    assert all(image["held"] == image["size"] > TOTAL for image in images)
    blobs = (await admin.get("/v1/blobs")).json()["blobs"]
    assert blobs[0]["size"] == len(LARGE)
    assert blobs[0]["images"] == ["reg.test/app:multi", "reg.test/app:v1"]


async def test_an_image_that_is_not_whole(admin: httpx.AsyncClient, node: Daemon) -> None:
    await node.client.get("/v2/app/manifests/v1")
    [image] = (await admin.get("/v1/images")).json()["images"]
    assert not image["complete"]
    assert image["size"] - image["held"] == TOTAL


@pytest.mark.parametrize(
    ("reference", "platform", "line"),
    [
        ("app:multi", "linux/riscv64", "no image for linux/riscv64; it has: linux/arm64/v8, linux/s390x"),
        ("app:none", "", "app"),
        ("other.test/app", "", 'add [upstreams."other.test"]'),
        ("App", "", "is not valid"),
        ("app:v1", "linux", "is not a platform like"),
    ],
)
async def test_a_pull_that_cannot_be(
    admin: httpx.AsyncClient, node: Daemon, reference: str, platform: str, line: str
) -> None:
    response = await admin.post("/v1/pull", json={"reference": reference, "platform": platform or None})
    error = response.json()["error"] if response.status_code != 200 else lines(response)[-1]["error"]
    assert line in error
    assert "\n" not in error


async def test_a_pull_ends_with_the_first_failure(
    admin: httpx.AsyncClient, node: Daemon, registry: FaultRegistry
) -> None:
    registry.fault("GET /v2/app/blobs/", wrong_bytes)
    events = await pull(admin, "app:v1")
    assert events[-1]["event"] == "error"
    registry.heal()
    registry.fault("GET /v2/app/blobs/", status(404))
    assert (await pull(admin, "app:v1"))[-1]["event"] == "error"


async def test_rot_is_found_and_dropped(admin: httpx.AsyncClient, node: Daemon) -> None:
    await pull(admin, "app:v1")
    good = lines(await admin.post("/v1/verify", json={}))
    assert good[-1] == {"event": "done", "size": good[-1]["size"], "checked": 4, "bad": 0}
    blobs = (await admin.get("/v1/blobs")).json()["blobs"]
    large = blobs[0]["digest"].removeprefix("sha256:")
    path = node.store / "blobs" / "sha256" / large[:2] / large
    body = bytearray(path.read_bytes())
    body[MIB + 5] ^= 1
    path.write_bytes(body)
    events = lines(await admin.post("/v1/verify", json={"digests": [f"sha256:{large}", blobs[1]["digest"]]}))
    assert [event["event"] for event in events] == ["corrupt", "ok", "done"]
    assert events[-1]["bad"] == 1
    assert len((await admin.get("/v1/blobs")).json()["blobs"]) == 3


async def test_the_configuration_in_use(
    admin: httpx.AsyncClient, node: Daemon, registry: FaultRegistry
) -> None:
    config = (await admin.get("/v1/config")).json()
    assert config["node"]["site"] == "test"
    assert config["mirror"]["listen"] == "127.0.0.1:0"
    assert config["upstreams"] == {"reg.test": {"url": registry.url, "alias": "", "ca_file": ""}}


async def test_wrong_questions_are_told_why(admin: httpx.AsyncClient, node: Daemon) -> None:
    for method, path, body, code in [
        ("GET", "/v1/nothing", b"", 404),
        ("POST", "/v1/status", b"", 405),
        ("POST", "/v1/pull", b"{", 400),
        ("POST", "/v1/pull", b"[" * 100_000, 400),
        ("POST", "/v1/pull", b"5", 400),
        ("POST", "/v1/pull", b"{}", 400),
        ("POST", "/v1/pull", b'{"reference": "a", "speed": 9}', 400),
        ("POST", "/v1/pull", b" " * 300_000, 400),
    ]:
        response = await admin.request(method, path, content=body)
        assert response.status_code == code, (path, body[:40])
        assert set(response.json()) == {"error"}


async def test_traffic_survives_a_restart(registry: FaultRegistry, tmp_path: Path, socket: Path) -> None:
    for round_ in (1, 2):
        async with open_daemon(node_config(tmp_path, registry.url, socket=str(socket))) as node:
            await node.client.get("/v2/app/manifests/v1")
            assert (await node.client.get(f"/v2/app/blobs/{registry.add_blob(SMALL)}")).content == SMALL
            async with admin_client(socket) as admin:
                told = (await admin.get("/v1/status")).json()
        assert told["total"]["given"] == round_ * len(SMALL)
        assert told["since_start"]["given"] == len(SMALL)
        assert told["today"] == told["total"]
        assert not await trio.Path(socket).exists()


async def test_a_socket_of_somebody_else_is_refused(
    node: Daemon, registry: FaultRegistry, tmp_path: Path, socket: Path
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_daemon(node_config(tmp_path / "other", registry.url, socket=str(socket))):
            pass
    assert caught.group_contains(Exception, match="another process does")


async def test_a_left_over_socket_is_replaced(registry: FaultRegistry, tmp_path: Path, socket: Path) -> None:
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(str(socket))
    listener.close()
    async with (
        open_daemon(node_config(tmp_path, registry.url, socket=str(socket))),
        admin_client(socket) as admin,
    ):
        assert (await admin.get("/v1/status")).status_code == 200


async def test_without_its_default_directory_a_node_runs_all_the_same(
    registry: FaultRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = str(tmp_path / "none" / "p2pd.sock")
    with pytest.raises(ExceptionGroup, match="nursery") as caught:
        async with open_daemon(node_config(tmp_path, registry.url, socket=away)):
            pass
    assert caught.group_contains(Exception, match="cannot listen at")
    monkeypatch.setattr("p2pd.app.daemon.DEFAULT_SOCKET", away)
    async with open_daemon(node_config(tmp_path, registry.url, socket=away)) as node:
        assert (await node.client.get("/v2/")).status_code == 200
        assert "admin.off" in node.said
