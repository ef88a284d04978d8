"""The whole seeder over real HTTP: a client of it, the service, and a registry behind it."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from benchmarks.testbed.registry import (
    Exchange,
    FaultRegistry,
    honest,
    ignore_range,
    short_body,
    status,
    wrong_bytes,
)
from p2pd.app.config import parse
from p2pd.io.seeder_client import SeederClient
from p2pd.model.content import OCI_MANIFEST, Holding, StaleTag
from p2pd.model.errors import (
    ConfigError,
    NotFound,
    OriginFault,
    RateLimited,
    StoreError,
    Unavailable,
)
from p2pd.model.layout import SEGMENT
from p2pd.model.listing import StaleListing
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.origin import SegmentAnswer
from seeder.cli import main
from seeder.config import SeederConfig
from seeder.service import run_seeder, usage_path
from seeder.usage import read_usage
from tests.support.memory_store import meta_of

APP = Repository("reg.test", "app")
TAG = Tag("v1")
BODY = bytes(range(251)) * (SEGMENT // 251 + 10_000)
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()


def settings(state_dir: Path, registry: FaultRegistry) -> SeederConfig:
    return parse(
        f'[seeder]\nlisten = "127.0.0.1:0"\nstate_dir = "{state_dir}"\ntag_ttl = "1ms"\n'
        f'[upstreams."reg.test"]\nurl = "{registry.url}"\nalias = "reg"\n'.encode(),
        SeederConfig,
        "test.toml",
    )


@pytest.fixture
async def registry(nursery: trio.Nursery) -> FaultRegistry:
    registry = FaultRegistry(auth="bearer")
    await nursery.start(registry.run)
    return registry


@pytest.fixture
async def client(
    nursery: trio.Nursery, registry: FaultRegistry, tmp_path: Path
) -> AsyncIterator[SeederClient]:
    host, port = await nursery.start(run_seeder, settings(tmp_path, registry))
    client = SeederClient(f"http://{host}:{port}/")
    yield client
    await client.aclose()


async def read(client: SeederClient, digest: Digest, start: int = 0) -> bytes:
    async with client.open_blob(APP, digest, start) as stream:
        assert stream.start == start
        return b"".join([chunk async for chunk in stream.chunks])


async def test_sixteen_nodes_are_one_request_at_the_origin(
    registry: FaultRegistry, client: SeederClient
) -> None:
    digest = registry.add_blob(BODY)
    manifest = registry.add_manifest(MANIFEST, TAG)
    gate, arrived = trio.Event(), trio.Event()

    async def hold(exchange: Exchange) -> None:
        arrived.set()
        await gate.wait()
        await honest(exchange)

    registry.fault("GET /v2/app/blobs/", hold)
    good: list[bool] = []

    async def node() -> None:
        good.append((await client.resolve(APP, TAG)).digest == manifest)
        good.append((await client.manifest(APP, manifest)).body == MANIFEST)
        good.append(await read(client, digest) == BODY)

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(node)
        await arrived.wait()
        gate.set()
    assert good == [True] * 48
    assert registry.count("GET /v2/app/blobs/") == 1
    assert registry.count("GET /v2/app/manifests/") <= 1 + 1  # and the one that was answered 401
    assert registry.tokens_given == 1


async def test_resumed_by_range_after_a_cut(registry: FaultRegistry, client: SeederClient) -> None:
    digest = registry.add_blob(BODY)
    registry.fault("GET /v2/app/blobs/", short_body(5_000_000), times=1)
    assert await read(client, digest) == BODY
    ranges = [
        seen.headers.get("range") for seen in registry.requests if seen.line.startswith("GET /v2/app/b")
    ]
    assert ranges == [None, "bytes=5000000-"]


async def test_an_origin_without_ranges(registry: FaultRegistry, client: SeederClient) -> None:
    digest = registry.add_blob(BODY)
    registry.fault("GET /v2/app/blobs/", short_body(5_000_000), times=1)
    registry.fault("GET /v2/app/blobs/", ignore_range)
    assert await read(client, digest) == BODY


async def test_wrong_bytes_reach_nobody_and_leave_nothing(
    registry: FaultRegistry, client: SeederClient, tmp_path: Path
) -> None:
    registry.auth = None
    digest = registry.add_blob(BODY)
    registry.fault("GET /v2/app/blobs/", wrong_bytes)
    with pytest.raises(OriginFault):
        await read(client, digest)
    found = [path.name for path in await trio.Path(tmp_path).rglob(f"*{digest.hex}*")]
    assert found == []


async def test_metadata_as_soon_as_it_is_there(registry: FaultRegistry, client: SeederClient) -> None:
    digest = registry.add_blob(BODY)
    for index in (0, 1):
        answer = await client.segment(APP, digest, len(BODY), index)
        assert answer.meta == meta_of(digest, BODY, len(BODY), index)
    assert registry.count("GET /v2/app/blobs/") == 1
    with pytest.raises(NotFound):
        await client.segment(APP, digest, len(BODY) + 1, 0)
    with pytest.raises(NotFound):
        await client.segment(APP, Digest("0" * 64), len(BODY), 0)
    with pytest.raises(NotFound):
        await client.segment(Repository("else.test", "app"), digest, len(BODY), 0)
    with pytest.raises(OriginFault):
        await client.segment(APP, digest, len(BODY), 9)


async def test_it_says_whether_it_is_still_pulling_a_blob(
    registry: FaultRegistry, client: SeederClient
) -> None:
    digest = registry.add_blob(BODY)
    gate = trio.Event()

    async def hold(exchange: Exchange) -> None:
        await gate.wait()
        await honest(exchange)

    registry.fault("GET /v2/app/blobs/", hold)
    ask = partial(client.segment, APP, digest, len(BODY), 1)
    assert await ask(is_patient=False) == SegmentAnswer(None, Holding.PULLING)
    gate.set()
    assert (await ask()).meta == meta_of(digest, BODY, len(BODY), 1)
    assert await read(client, digest) == BODY
    for start in (0, 1000):
        async with client.open_blob(APP, digest, start, start + 10) as stream:
            assert stream.holding is Holding.WHOLE
    assert (await ask(is_patient=False)).holding is Holding.WHOLE


async def test_what_the_origin_says_is_passed_on(registry: FaultRegistry, client: SeederClient) -> None:
    registry.fault("/v2/limited/", status(429, {"Retry-After": "7"}))
    registry.fault("/v2/down/", status(500))
    with pytest.raises(NotFound):
        await client.manifest(APP, Tag("none"))
    with pytest.raises(RateLimited) as caught:
        await client.manifest(Repository("reg.test", "limited"), TAG)
    assert caught.value.retry_after == 7
    with pytest.raises(Unavailable):
        await client.blob_size(Repository("reg.test", "down"), Digest("0" * 64))
    with pytest.raises(NotFound):
        await client.manifest(Repository("else.test", "app"), TAG)


async def test_a_tag_is_stale_while_the_origin_is_down(registry: FaultRegistry, client: SeederClient) -> None:
    digest = registry.add_manifest(MANIFEST, TAG)
    await client.manifest(APP, TAG)
    registry.fault("/v2/", status(503))
    with pytest.raises(StaleTag) as caught:
        await client.resolve(APP, TAG)
    assert caught.value.descriptor is not None
    assert caught.value.descriptor.digest == digest


async def test_lists_are_stale_while_the_origin_is_down(
    registry: FaultRegistry, client: SeederClient
) -> None:
    digest = registry.add_manifest(MANIFEST, TAG)
    registry.documents["/v2/app/tags/list"] = b'{"name": "app", "tags": ["v1"]}'
    tags, none = await client.tags(APP, ""), await client.referrers(APP, digest)
    registry.fault("/v2/", status(503))
    with pytest.raises(StaleListing) as caught:
        await client.tags(APP, "")
    assert caught.value.body == tags
    with pytest.raises(StaleListing) as caught:
        await client.referrers(APP, digest)
    assert caught.value.body == none
    with pytest.raises(Unavailable):
        await client.tags(APP, "n=1")


async def test_it_serves_what_it_holds_after_a_restart(registry: FaultRegistry, tmp_path: Path) -> None:
    digest = registry.add_blob(BODY)
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            host, port = await nursery.start(run_seeder, settings(tmp_path, registry))
            client = SeederClient(f"http://{host}:{port}")
            assert await read(client, digest, 1000) == BODY[1000:]
            await client.aclose()
            nursery.cancel_scope.cancel()
    assert registry.count("GET /v2/app/blobs/") == 1
    noted = await trio.to_thread.run_sync(read_usage, usage_path(settings(tmp_path, registry)))
    assert [(row.digest, row.repository, row.pulls) for row in noted] == [(str(digest), "reg.test/app", 2)]


async def test_an_answer_that_ends_in_the_stop_is_counted(registry: FaultRegistry, tmp_path: Path) -> None:
    digest = registry.add_blob(BODY)
    config, scope = settings(tmp_path, registry), trio.CancelScope()

    async def run(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        with scope:
            await run_seeder(config, task_status)

    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(run)
        client = SeederClient(f"http://{host}:{port}")
        assert await read(client, digest) == BODY
        async with client.open_blob(APP, digest) as stream:
            body = bytearray(await anext(stream.chunks))
            scope.cancel()
            async for chunk in stream.chunks:
                body += chunk
        assert body == BODY
        await client.aclose()
    noted = await trio.to_thread.run_sync(read_usage, usage_path(config))
    assert [(row.bytes_served, row.pulls) for row in noted] == [(2 * len(BODY), 2)]


async def test_two_seeders_on_one_directory_are_refused(
    registry: FaultRegistry, client: SeederClient, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="in use"):
        await run_seeder(settings(tmp_path, registry))


async def test_the_command_starts_serves_and_stops_at_sigterm(
    registry: FaultRegistry, tmp_path: Path
) -> None:
    config = tmp_path / "seeder.toml"
    await trio.Path(config).write_text(
        f'[seeder]\nlisten = "127.0.0.1:0"\nstate_dir = "{tmp_path}/state"\n'
        f'[upstreams."reg.test"]\nurl = "{registry.url}"\n[log]\nformat = "json"\n'
    )
    digest = registry.add_blob(BODY)
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-m", "seeder.cli", "run", "--config", str(config)]
        read_end, write_end = os.pipe()
        process: trio.Process = await nursery.start(partial(trio.run_process, command, stderr=write_end))
        os.close(write_end)
        async with trio.lowlevel.FdStream(read_end) as log:
            lines = b""
            with trio.fail_after(20):
                while b"seeder.ready" not in lines:
                    lines += await log.receive_some()
            ready = next(json.loads(line) for line in lines.splitlines() if b"seeder.ready" in line)
            client = SeederClient(f"http://{ready['listen']}")
            assert await read(client, digest) == BODY
            await client.aclose()
            process.send_signal(signal.SIGTERM)
            with trio.fail_after(10):
                assert await process.wait() == 0


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "seeder.toml"
    config.write_text('[seeder]\nlisten = "nowhere"\n')
    assert main(["run", "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "seeder.toml, line 2: seeder.listen" in said
    assert main(["--version"]) == 0


def test_usage_of_a_seeder_that_never_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "seeder.toml"
    config.write_text(f'[seeder]\nstate_dir = "{tmp_path}/none"\n')
    assert main(["usage", "--config", str(config)]) == 0
    assert capsys.readouterr() == ("", "nothing was served yet\n")


def test_defaults_and_refused_keys() -> None:
    config = parse(b"", SeederConfig)
    assert (config.seeder.tag_ttl, str(config.seeder.listen)) == (5.0, "0.0.0.0:7790")
    assert [spec.registry for spec in config.upstreams] == [
        "docker.io",
        "ghcr.io",
        "quay.io",
        "registry.k8s.io",
    ]
    with pytest.raises(ConfigError, match="did you mean tag_ttl"):
        parse(b'[seeder]\ntag_tll = "5s"\n', SeederConfig)
