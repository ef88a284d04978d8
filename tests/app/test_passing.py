"""Content that passes through a node whose disk is full."""

from __future__ import annotations

import random
from contextlib import aclosing
from pathlib import Path

import pytest
from trio.testing import MockClock

from p2pd.model.errors import StoreError, StoreFull, Unavailable, WrongContent
from p2pd.model.layout import MIB
from p2pd.ports.content import Blob
from tests.support.memory_origin import digest_of
from tests.support.memory_site import REPOSITORY, MemoryNode, MemorySite, open_site

SMALL = b"layer " * 1000
LARGE = random.Random(3).randbytes(5 * MIB + 77)


def publish(site: MemorySite) -> None:
    for source in (site.seeder, site.origin):
        for body in (SMALL, LARGE):
            source.put(body)


async def blob_of(node: MemoryNode, body: bytes) -> Blob:
    return await node.content.blob(REPOSITORY, digest_of(body))


async def read(blob: Blob, start: int = 0) -> bytes:
    async with aclosing(blob.chunks(start, blob.size)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_small_and_large_pass_through_a_full_disk(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        publish(site)
        node.store.capacity = 0
        assert await read(await blob_of(node, SMALL)) == SMALL
        assert await read(await blob_of(node, LARGE)) == LARGE
        assert list(node.store.held()) == []
        again = await blob_of(node, LARGE)  # its transfer failed a moment ago
        assert await read(again) == LARGE
        with pytest.raises(Unavailable):
            await read(again, 1000)
        assert node.counted("served_bytes") == len(SMALL) + 2 * len(LARGE)


async def test_a_disk_that_fills_in_mid_transfer(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        publish(site)
        node.store.capacity = 2 * MIB
        blob = await blob_of(node, LARGE)
        assert await read(blob) == LARGE
        assert list(node.store.held()) == []
        node.store.capacity = 1 << 40
        autojump_clock.jump(60)
        assert await read(await blob_of(node, LARGE)) == LARGE
        assert dict(node.store.held()) == {digest_of(LARGE): len(LARGE)}


async def test_a_peer_gives_what_it_holds(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node, peer = site.join(1, seeder=False), site.join(2)
        await site.met()
        publish(site)
        await peer.store.write(digest_of(LARGE), LARGE)
        node.store.capacity = 0
        passing = node.content._passing.blob(REPOSITORY, digest_of(LARGE), len(LARGE))
        assert await read(passing) == LARGE
        assert node.counted("lan_bytes") == len(LARGE)
        assert site.origin.asked.total() == 0


async def test_wrong_bytes_of_a_peer_do_not_end_whole_and_are_not_asked_for_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        node, peer = site.join(1, seeder=False), site.join(2)
        await site.met()
        publish(site)
        peer.store.blobs[digest_of(LARGE)] = LARGE[:-1] + b"!"
        got = bytearray()
        blob = node.content._passing.blob(REPOSITORY, digest_of(LARGE), len(LARGE))

        async def take() -> None:
            async with aclosing(blob.chunks(0, blob.size)) as chunks:
                async for chunk in chunks:
                    got.extend(chunk)

        with pytest.raises(WrongContent):
            await take()
        assert len(got) < len(LARGE)
        assert await read(blob) == LARGE
        assert site.origin.asked["open_blob"] > 0


async def test_the_error_stays_where_nobody_can_go_on(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        partial = await node.store.begin(digest_of(LARGE), len(LARGE))
        await partial.append(LARGE[:MIB])
        partial.fail(StoreFull("the disk is full"))
        blob = node.content._passing.follow(REPOSITORY, partial)
        with pytest.raises(StoreError):
            async with aclosing(blob.chunks(0, 2 * MIB)) as chunks:
                assert [chunk async for chunk in chunks]
        await partial.aclose()


async def test_what_a_peer_is_fetching_does_not_cross_the_wan_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        node, peer = site.join(1, seeder=False), site.join(2, seeder=False)
        await site.met()
        publish(site)
        site.origin.bytes_s = MIB
        transfer = await peer.transfers.obtain(REPOSITORY, digest_of(LARGE), len(LARGE))
        assert await read(node.content._passing.blob(REPOSITORY, digest_of(LARGE), len(LARGE))) == LARGE
        await transfer.ended.wait()
        assert site.origin.asked["open_blob"] == 1
        assert node.counted("lan_bytes") == len(LARGE)
