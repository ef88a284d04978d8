"""What a node answers to its peers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pd.app.peer_service import PeerService
from p2pd.model.errors import Denied, NotFound, PeerProtocolError, Unavailable
from p2pd.model.layout import MIB
from p2pd.model.messages import (
    Fetch,
    Fetched,
    Join,
    Joined,
    Ping,
    Pong,
    Progress,
    Query,
    QueryReply,
    Read,
    ReadReply,
    Request,
    Resolve,
    SegmentReady,
    Want,
    WantReply,
)
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.peers import Peer
from tests.support.memory_origin import digest_of
from tests.support.memory_site import REPOSITORY, MemoryNode, node_id, open_site

PEER = Peer(node_id(9), "10.0.0.9", 6881)
BODY = bytes(range(256)) * 8000
DIGEST = digest_of(BODY)
NOWHERE = Digest("0" * 64)


def progress(size: int = len(BODY), *, done: bool = False) -> Progress:
    bits = bytes(-(-size // (256 * 1024) // 8) or 1)
    return Progress(DIGEST, size, bits, bits, "none", done)


async def test_before_it_is_attached_a_peer_waits(tmp_path: Path, autojump_clock: MockClock) -> None:
    service = PeerService()
    service.notice_nowait(PEER, progress())
    answers: list[object] = []

    async def ask() -> None:
        answers.append(await service.answer(PEER, Ping()))

    async with open_site(tmp_path) as site, trio.open_nursery() as nursery:
        node = site.join(1)
        nursery.start_soon(ask)
        await trio.sleep(10)
        assert answers == []
        service.attach(node.site, node.transfers, node.small, node.tags)
    assert answers == [Pong()]


async def test_about_what_is_held(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        node.store.blobs[DIGEST] = BODY
        ask = node.service.answer
        assert await ask(PEER, Query(DIGEST)) == QueryReply(len(BODY), None)
        assert await ask(PEER, Want(progress())) == WantReply(True, None)
        assert await ask(PEER, Want(progress(5 * MIB))) == WantReply(False, None), "of another size"
        assert await ask(PEER, Read(DIGEST, 100, 1000)) == ReadReply(BODY[100:1100])
        joined = await ask(PEER, Join(DIGEST, len(BODY), 0))
        assert isinstance(joined, Joined)
        assert joined.loaded
        meta = node.engine.loaded[0].meta
        assert joined.piece_hashes == meta.piece_hashes
        confirm = Join(DIGEST, len(BODY), 0, fingerprint=meta.fingerprint)
        assert await ask(PEER, confirm) == Joined(True, None, is_same=True)
        assert await ask(PEER, replace(confirm, fingerprint=b"x" * 16)) == joined


async def test_about_what_is_not(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        ask = node.service.answer
        assert await ask(PEER, Query(NOWHERE)) == QueryReply(None, None)
        assert await ask(PEER, Want(progress())) == WantReply(False, None)
        assert await ask(PEER, Join(NOWHERE, len(BODY), 0)) == Joined(False, None)
        assert node.engine.loaded == []
        # Nobody makes this node begin a transfer, or ask the WAN, by telling it things.
        node.service.notice_nowait(PEER, progress(done=True))
        node.service.notice_nowait(PEER, SegmentReady(NOWHERE, len(BODY), 0, bytes(160)))
        assert node.transfers.all_running() == []
        assert site.seeder.asked.total() == site.origin.asked.total() == 0


@pytest.mark.parametrize(
    "request_", [Read(NOWHERE, 0, 10), Read(DIGEST, len(BODY) - 5, 10), Read(DIGEST, 2**40, 1)]
)
async def test_reads_beyond_what_is_held(
    tmp_path: Path, autojump_clock: MockClock, request_: Request
) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        node.store.blobs[DIGEST] = BODY
        with pytest.raises(NotFound):
            await node.service.answer(PEER, request_)


async def test_a_segment_that_the_blob_has_not(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        node.store.blobs[DIGEST] = BODY
        assert await node.service.answer(PEER, Join(DIGEST, len(BODY), 99)) == Joined(False, None)


async def test_fetch_as_the_owner(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        digest = site.seeder.put(b"config")
        fetch = Fetch(REPOSITORY, digest, False)
        assert await node.service.answer(PEER, fetch) == Fetched(6)
        site.cut(Unavailable("cut"))
        assert await node.service.answer(PEER, fetch) == Fetched(6), "it holds it now"
        with pytest.raises(Unavailable):
            await node.service.answer(PEER, Fetch(REPOSITORY, NOWHERE, True))


async def test_what_is_no_request(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node: MemoryNode = site.join(1)
        with pytest.raises(PeerProtocolError):
            await node.service.answer(PEER, Pong())  # type: ignore[arg-type] # what a peer might send


async def test_a_registry_that_is_no_upstream_is_not_asked(tmp_path: Path, autojump_clock: MockClock) -> None:
    other = Repository("other.test", "app")
    async with open_site(tmp_path) as site:
        node = site.join(1)
        for source in (site.seeder, site.origin):
            source.tag_of["v1"] = source.put(b'{"schemaVersion":2,"layers":[]}')
        node.service.attach(node.site, node.transfers, node.small, node.tags, None, {REPOSITORY.registry})
        requests: tuple[Request, ...] = (
            Fetch(other, DIGEST, False),
            Resolve(other, Tag("v1"), upstream=True),
        )
        for request in requests:
            with pytest.raises(Denied):
                await node.service.answer(PEER, request)
        assert site.seeder.asked.total() == site.origin.asked.total() == 0
        assert await node.service.answer(PEER, Resolve(REPOSITORY, Tag("v1"), upstream=True))
