"""Wherever they are cut, transfers, answers and servers leave no task, file, torrent or socket behind."""

from __future__ import annotations

import itertools
import os
import random
from functools import partial
from pathlib import Path

import pytest
import trio
from starlette.types import ASGIApp, Message
from trio.testing import MockClock

from p2pd.app.transfers import Transfers
from p2pd.io.registry_app import build_app
from p2pd.io.serve import serve
from p2pd.model.layout import MIB
from p2pd.model.reference import Digest
from p2pd.wire.registry_api import Upstreams
from tests.support.cancelling import Cut, at_every_step
from tests.support.fake_peers import open_fake_site
from tests.support.memory_content import MemoryContent, digest_of
from tests.support.memory_site import REPOSITORY, MemoryNode, MemorySite

BODY = random.Random(5).randbytes(256 * 1024 + 3)
LARGE = random.Random(6).randbytes(MIB + 1)
UPSTREAMS = Upstreams({REPOSITORY.registry: REPOSITORY.registry})


def begun(node: MemoryNode, nursery: trio.Nursery) -> Transfers:
    """The node's transfers, as after a start of its daemon."""
    transfers = Transfers(node.site, nursery, wall=trio.current_time)
    node.service.attach(node.site, transfers, node.small, node.tags)
    return transfers


async def read_all(transfers: Transfers, digest: Digest) -> None:
    transfer = await transfers.obtain(REPOSITORY, digest, len(BODY))
    assert b"".join([chunk async for chunk in transfer.partial.chunks(0, len(BODY))]) == BODY
    await transfer.ended.wait()


async def ask(app: ASGIApp, path: str) -> bytes:
    """One GET; the body as far as it came."""
    body = bytearray()

    async def receive() -> Message:
        return await trio.sleep_forever()

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        body.extend(message.get("body", b""))

    query = f"ns={REPOSITORY.registry}".encode()
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": []}
    await app(scope, receive, send)
    return bytes(body)


async def leave_and_ask_again(cut: Cut, node: MemoryNode, digest: Digest, body: bytes) -> None:
    """A client of the node's mirror that is cut off, and when nothing is under way any more, another."""
    app = build_app(node.content, upstreams=UPSTREAMS)

    async def client() -> None:
        assert await ask(app, f"/v2/{REPOSITORY.name}/blobs/{digest}") == body

    await cut.run(client)
    while node.transfers.all_running():  # noqa: ASYNC110 - virtual time
        await trio.sleep(0.01)
    await client()


async def check_clean(node: MemoryNode) -> None:
    """Nothing runs or is open, and what is loaded is so for peers only: in time it goes."""
    assert node.store.partials == {}
    loaded = {(segment.meta.digest, segment.meta.index) for segment in node.engine.loaded}
    assert loaded == node.site.shelf.loaded
    with trio.move_on_after(90):
        await node.site.shelf.tend()
    assert node.engine.loaded == []
    if node.store.blobs:  # Else its segments are kept for the next attempt.
        assert list(node.store.staging.iterdir()) == []


@pytest.mark.parametrize("has_seeder", [True, False], ids=["seeder", "leading"])
async def test_a_stop_anywhere_in_a_transfer(
    tmp_path: Path, autojump_clock: MockClock, has_seeder: bool
) -> None:
    numbers = itertools.count()
    digest = digest_of(BODY)

    async def attempt(cut: Cut) -> None:
        directory = tmp_path / str(next(numbers))
        directory.mkdir()
        async with open_fake_site() as lan, trio.open_nursery() as others:
            site = MemorySite(lan, others, directory)
            node = site.join(1, seeder=has_seeder)
            site.join(2, seeder=has_seeder)
            await site.met()
            for source in (site.origin, site.seeder):
                source.put(BODY)

            async def daemon() -> None:
                async with trio.open_nursery() as nursery:
                    transfers = begun(node, nursery)
                    await read_all(transfers, digest)
                    nursery.cancel_scope.cancel()

            await cut.run(daemon)
            assert not node.peers.busy
            await check_clean(node)
            await daemon()
            assert node.store.blobs[digest] == BODY
            await check_clean(node)

    await at_every_step(attempt, least=50)


async def test_a_client_that_leaves_anywhere_in_its_blob(tmp_path: Path, autojump_clock: MockClock) -> None:
    numbers = itertools.count()

    async def attempt(cut: Cut) -> None:
        directory = tmp_path / str(next(numbers))
        directory.mkdir()
        async with open_fake_site() as lan, trio.open_nursery() as daemon:
            site = MemorySite(lan, daemon, directory)
            node = site.join(1)
            digest = site.seeder.put(LARGE)
            await leave_and_ask_again(cut, node, digest, LARGE)
            assert site.seeder.given[digest] == len(LARGE), "the transfer went on, whoever had left"
            await check_clean(node)

    await at_every_step(attempt, least=15)


@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
async def test_a_client_that_leaves_anywhere_in_what_passes_through_a_full_disk(
    tmp_path: Path, autojump_clock: MockClock, body: bytes
) -> None:
    """A small one comes through another node, which owns it or holds it."""
    numbers = itertools.count()

    async def attempt(cut: Cut) -> None:
        directory = tmp_path / str(next(numbers))
        directory.mkdir()
        async with open_fake_site() as lan, trio.open_nursery() as daemon:
            site = MemorySite(lan, daemon, directory)
            node, _ = site.join(1, seeder=False), site.join(2, seeder=False)
            await site.met()
            digest = site.origin.put(body)
            node.store.capacity = 0
            await leave_and_ask_again(cut, node, digest, body)
            await check_clean(node)
            assert not daemon.child_tasks

    await at_every_step(attempt, least=15)


async def test_a_server_that_stops_anywhere_in_its_answers() -> None:
    content = MemoryContent()
    digest, blob = content.add_blob(BODY)
    content.add_manifest("1", b"{}")
    app = build_app(content, upstreams=UPSTREAMS)
    serve_now = partial(serve, app, host="127.0.0.1", port=0, graceful_s=0, linger_s=0)
    head = f"?ns={REPOSITORY.registry} HTTP/1.1\r\nHost: x\r\n"
    asked = [
        f"GET /v2/{REPOSITORY.name}/manifests/1{head}\r\n".encode(),
        f"GET /v2/{REPOSITORY.name}/blobs/{digest}{head}Connection: close\r\n\r\n".encode(),
    ]

    async def daemon() -> None:
        async with trio.open_nursery() as nursery:
            host, port = await nursery.start(serve_now)
            async with await trio.open_tcp_stream(host, port) as client:
                received = b""
                await client.send_all(asked[0])
                while not received.endswith(b"{}"):
                    received += await client.receive_some(65536)
                await client.send_all(asked[1])
                async for data in client:
                    received += data
                assert received.endswith(BODY)
            nursery.cancel_scope.cancel()

    await daemon()
    before = len(os.listdir("/proc/self/fd"))

    async def attempt(cut: Cut) -> None:
        with trio.fail_after(10):
            await cut.run(daemon)
        assert blob.open_streams == 0
        assert len(os.listdir("/proc/self/fd")) <= before  # an earlier test's may be closed meanwhile

    await at_every_step(attempt, least=50)
