"""The seeder's admin API and its commands, over the real socket of a whole seeder."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from benchmarks.testbed.registry import FaultRegistry
from p2pd.io.seeder_client import SeederClient
from p2pd.model.content import OCI_MANIFEST
from p2pd.model.reference import Digest, Repository, Tag
from seeder.cli import main
from tests.support.admin import admin_client, fits, schema_for
from tests.support.daemon import open_seeder

APP = Repository("reg.test", "app")
TAG = Tag("v1")
LAYER = bytes(3_000_000)

Call = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "seeder.sock"
    monkeypatch.setenv("P2PD_SEEDER_SOCKET", str(path))
    return path


@pytest.fixture
async def url(nursery: trio.Nursery, tmp_path: Path, socket: Path) -> AsyncIterator[str]:
    registry = FaultRegistry()
    await nursery.start(registry.run)
    layer = {"mediaType": "x/y", "digest": str(registry.add_blob(LAYER)), "size": len(LAYER)}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [layer]}
    registry.add_manifest(json.dumps(manifest).encode(), TAG)
    async with open_seeder(tmp_path, registry.url, socket=str(socket)) as url:
        yield url


@pytest.fixture
def call(socket: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    async def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with capture_logs():
            status = await trio.to_thread.run_sync(main, words)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


async def pull(url: str, site: str) -> None:
    """What a node of this site asks for."""
    client = SeederClient(url, site=site)
    manifest = await client.manifest(APP, TAG)
    digest = Digest.parse(json.loads(manifest.body)["layers"][0]["digest"])
    async with client.open_blob(APP, digest) as stream:
        assert b"".join([chunk async for chunk in stream.chunks]) == LAYER
    await client.aclose()


async def test_who_was_served_what(url: str, call: Call) -> None:
    assert await call("sites") == (0, "", "no site was served yet\n")
    for site in ("shop-7", "shop-8", "shop-7", "", "no name\x7f"):
        await pull(url, site)
    _, out, _ = await call("sites", "--json")
    assert {row["site"]: (row["answers"], row["bytes"]) for row in json.loads(out)} == {
        "shop-7": (2, 2 * len(LAYER)),
        "shop-8": (1, len(LAYER)),
        "": (2, 2 * len(LAYER)),
    }
    assert re.search(r"^shop-7 +\d{4}-.* 2 +6.0 MB$", (await call("sites"))[1], re.MULTILINE)
    assert re.search(r"^reg.test/app:v1 .* whole$", (await call("images"))[1], re.MULTILINE)
    assert re.search(r"^sha256:\w{64} +3.0 MB +\ds +reg.test/app:v1$", (await call("blobs"))[1], re.MULTILINE)
    status, out, err = await call("status")
    assert (status, err) == (0, "")
    assert "served 15.0 MB to 3 sites" in out
    assert "pulls from reg.test" in out
    assert json.loads((await call("status", "--json"))[1])["blobs"] == 2


async def test_every_answer_is_as_the_document_says(url: str, socket: Path) -> None:
    await pull(url, "shop-7")
    async with admin_client(socket) as admin:
        document = (await admin.get("/v1/openapi.json")).json()
        assert len(document["paths"]) >= 5
        for path, methods in document["paths"].items():
            for method in methods:
                answer = (await admin.request(method.upper(), path)).json()
                fits(answer, schema_for(document, method, path), document, path)
        config = (await admin.get("/v1/config")).json()
    assert config["seeder"]["tag_ttl"] == 0.001


async def test_without_a_seeder(call: Call, socket: Path) -> None:
    line = f"p2pd-seeder: nobody answers at {socket}: is p2pd-seeder running? systemctl status p2pd-seeder\n"
    for command in ("status", "images", "blobs", "sites"):
        assert await call(command) == (3, "", line)


@pytest.mark.parametrize("command", ["", "run", "status", "images", "blobs", "sites", "usage"])
async def test_every_help_teaches(call: Call, command: str) -> None:
    status, out, err = await call(*command.split(), "--help")
    assert (status, err) == (0, "")
    assert "Usage: p2pd-seeder" in out
    assert command in {"", "run"} or "--json" in out
