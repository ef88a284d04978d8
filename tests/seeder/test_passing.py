"""A seeder whose disk is full: what it passes on, and what it checks of that."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pd.model.errors import NotFound, Unavailable, WrongContent
from p2pd.model.layout import MIB, SEGMENT
from p2pd.model.reference import Digest
from p2pd.ports.content import Blob
from seeder.passing import HASHES_FOR
from tests.seeder.test_content import APP, BODY, DIGEST, OTHER, Bench, read
from tests.support.memory_store import meta_of
from tests.support.scripted_origin import Step


@pytest.fixture
async def bench(nursery: trio.Nursery, tmp_path: Path) -> Bench:
    bench = Bench(nursery, tmp_path)
    bench.store.capacity = MIB
    return bench


async def test_a_disk_that_fills_in_mid_way_ends_no_pull(bench: Bench, autojump_clock: MockClock) -> None:
    assert await read(await bench.content.blob(APP, DIGEST)) == BODY
    assert await read(await bench.content.blob(APP, DIGEST)) == BODY, "the transfer is refused now"
    assert bench.store.blobs == {}
    await trio.sleep(60)
    assert await read(await bench.content.blob(APP, DIGEST), 3 * MIB, 3 * MIB + 10) == BODY[3 * MIB :][:10]
    assert bench.served == [(DIGEST, len(BODY)), (DIGEST, len(BODY)), (DIGEST, 10)]


async def test_a_part_that_waits_for_bytes_still_to_come_gets_them(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.origin.steps = [Step(pause=0.1), Step()]
    blob = await bench.content.blob(APP, DIGEST)
    assert await read(blob, 2 * MIB, 3 * MIB) == BODY[2 * MIB : 3 * MIB]
    assert bench.origin.asked[1:] == [(2 * MIB, 3 * MIB)]


async def test_wrong_bytes_are_never_given_whole(bench: Bench, autojump_clock: MockClock) -> None:
    bench.store.capacity = 0
    bench.origin.steps = [Step(body=BODY[:-1] + b"!")]
    for _ in range(2):  # as the disk fills, and when it is known to be full
        received = bytearray()
        blob = await bench.content.blob(APP, DIGEST)

        async def drain(blob: Blob = blob, received: bytearray = received) -> None:
            async for chunk in blob.chunks(0, blob.size):
                received.extend(chunk)

        with pytest.raises(WrongContent):
            await drain()
        assert len(received) < len(BODY)


async def test_breaks_of_the_origin_are_bridged_and_a_dead_one_is_told(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.store.capacity = 0
    await read(await bench.content.blob(APP, DIGEST))
    bench.origin.steps = [Step(cut=MIB), Step(whole=True)]
    assert await read(await bench.content.blob(APP, DIGEST)) == BODY
    blob = await bench.content.blob(APP, DIGEST)
    bench.origin.steps = [Step(error=Unavailable("the cable is cut"))]
    with pytest.raises(Unavailable, match="cable"):
        await read(blob)


async def test_piece_hashes_are_made_without_keeping_the_segment(
    bench: Bench, autojump_clock: MockClock
) -> None:
    body = bytes(range(251)) * (2 * SEGMENT // 251 + 5)
    digest = Digest(hashlib.sha256(body).hexdigest())
    bench.origin.blobs[digest] = body
    for index in (0, 1, 2):
        meta = await bench.content.segment_meta(APP, digest, len(body), index)
        assert meta == meta_of(digest, body, len(body), index)
    await trio.sleep(60)
    with pytest.raises(NotFound, match="bytes, not"):
        await bench.content.segment_meta(APP, digest, len(body) + 1, 0)


async def test_hashing_that_is_given_up_goes_on_where_it_was(bench: Bench, autojump_clock: MockClock) -> None:
    bench.store.capacity = 0
    await read(await bench.content.blob(APP, DIGEST))
    bench.origin.steps = [Step(chunk=300_000, pause=1.0)]
    with trio.move_on_after(5.5):
        await bench.content.segment_meta(APP, DIGEST, len(BODY), 0)
    bench.origin.steps = [Step()]
    bench.origin.asked.clear()
    meta = await bench.content.segment_meta(APP, DIGEST, len(BODY), 0)
    assert meta == meta_of(DIGEST, BODY, len(BODY), 0)
    assert bench.origin.asked[-1][0] > 0


async def test_hashes_of_an_origins_wrong_bytes_are_not_told_for_ever(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.store.capacity = 0
    await read(await bench.content.blob(APP, DIGEST))
    right, wrong = (meta_of(DIGEST, body, len(BODY), 0) for body in (BODY, bytes(len(BODY))))
    bench.origin.steps = [Step(body=bytes(len(BODY))), Step()]
    assert await bench.content.segment_meta(APP, DIGEST, len(BODY), 0) == wrong
    bench.origin.asked.clear()
    assert await bench.content.segment_meta(APP, DIGEST, len(BODY), 0) == wrong
    assert (0, len(BODY)) not in bench.origin.asked, "the nodes of a site ask one after the other"
    await trio.sleep(HASHES_FOR + 1)
    assert await bench.content.segment_meta(APP, DIGEST, len(BODY), 0) == right


async def test_repositories_that_are_hashed_at_once_do_not_mix(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.store.capacity = 0
    await read(await bench.content.blob(APP, DIGEST))
    bench.origin.steps = [Step(chunk=300_000, pause=0.5)]
    async with trio.open_nursery() as nursery:
        for repository in (APP, OTHER):
            nursery.start_soon(bench.content.segment_meta, repository, DIGEST, len(BODY), 0)
    for repository in (APP, OTHER):
        meta = await bench.content.segment_meta(repository, DIGEST, len(BODY), 0)
        assert meta == meta_of(DIGEST, BODY, len(BODY), 0)
