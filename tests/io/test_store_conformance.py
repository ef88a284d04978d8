"""What every Store does, held against the one on files and the one in memory."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from p2pd.io.store import FileStore
from p2pd.model.content import Descriptor
from p2pd.model.errors import RateLimited, StoreError, Unavailable, WrongContent
from p2pd.model.layout import MANIFEST_LIMIT, SEGMENT, Layout, SegmentMeta
from p2pd.model.listing import ListingKey
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.store import HeldBlob, ListingRecord, Partial, Store, TagRecord
from tests.support.memory_store import MemoryStore, meta_of
from tests.support.waiting import until

KIB = 1024
LARGE = 3 * 1024 * KIB + 17
"""Bytes of a blob of 13 pieces of 256 KiB in one segment."""
BODY = random.Random(5).randbytes(SEGMENT + LARGE)


def digest_of(body: bytes) -> Digest:
    return Digest(hashlib.sha256(body).hexdigest())


def meta(body: bytes, index: int) -> SegmentMeta:
    found = meta_of(digest_of(body), body, len(body), index)
    assert found is not None
    return found


async def read(source: HeldBlob | Partial, start: int, stop: int) -> bytes:
    async with aclosing(source.chunks(start, stop)) as chunks:
        parts = [chunk async for chunk in chunks]
    assert all(parts)
    return b"".join(parts)


async def assemble(store: Store, body: bytes) -> None:
    partial = await store.begin(digest_of(body), len(body))
    await partial.append(body[partial.frontier :])
    await partial.commit()
    await partial.aclose()


@pytest.fixture(params=["files", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "files":
        return await FileStore.open_dir(tmp_path)
    return MemoryStore(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 256 * KIB, 1024 * KIB, 1024 * KIB + 1, LARGE])
async def test_assembled_blob_is_held_and_read_back(store: Store, size: int) -> None:
    body = BODY[:size]
    digest = digest_of(body)
    assert store.size_of(digest) is None
    assert await store.open(digest) is None
    await assemble(store, body)
    assert store.size_of(digest) == size
    assert list(store.held()) == [(digest, size)]
    blob = await store.open(digest)
    assert blob is not None
    assert blob.size == size
    assert await read(blob, 0, size) == body
    assert await read(blob, 0, size + 1) == body
    for start, stop in [(0, 1), (size // 3, size // 2), (size // 2, size), (size, size)]:
        assert await read(blob, start, stop) == body[start:stop]


async def test_small_blob_is_written_and_read_whole(store: Store) -> None:
    body = b'{"schemaVersion": 2}'
    await store.write(digest_of(body), body)
    assert await store.read(digest_of(body)) == body
    assert store.size_of(digest_of(body)) == len(body)
    assert await store.read(digest_of(b"other")) is None


async def test_write_refuses_what_is_not_the_digest(store: Store) -> None:
    with pytest.raises(WrongContent):
        await store.write(digest_of(b"right"), b"wrong")
    assert store.size_of(digest_of(b"right")) is None


async def test_read_is_for_manifests_only(store: Store) -> None:
    at_limit, over = BODY[:MANIFEST_LIMIT], BODY[: MANIFEST_LIMIT + 1]
    for body in (at_limit, over):
        await store.write(digest_of(body), body)
    assert await store.read(digest_of(at_limit)) == at_limit
    assert await store.read(digest_of(over)) is None
    assert store.size_of(digest_of(over)) == len(over)


async def test_dropped_blob_is_not_held(store: Store) -> None:
    await assemble(store, BODY[:LARGE])
    digest = digest_of(BODY[:LARGE])
    open_before = await store.open(digest)
    assert open_before is not None
    await store.drop(digest)
    await store.drop(digest)
    assert store.size_of(digest) is None
    assert await store.open(digest) is None
    assert await store.segment_meta(digest, 0) is None
    assert await read(open_before, 0, LARGE) == BODY[:LARGE]


async def test_readers_follow_the_writer_and_get_the_tail_after_commit(store: Store) -> None:
    body = BODY[:LARGE]
    tail = Layout(LARGE).stripe(Layout(LARGE).stripe_count - 1).start
    partial = await store.begin(digest_of(body), LARGE)
    got = [bytearray() for _ in range(3)]
    moved = trio.lowlevel.ParkingLot()

    async def follow(into: bytearray, start: int) -> None:
        async with aclosing(partial.chunks(start, LARGE)) as chunks:
            async for chunk in chunks:
                into += chunk
                moved.unpark_all()

    async with trio.open_nursery() as nursery:
        for into, start in zip(got, (0, 1000, tail + 1), strict=True):
            nursery.start_soon(follow, into, start)
        for start, stop in [(0, 10), (10, 300 * KIB), (300 * KIB, tail - 5), (tail - 5, LARGE)]:
            await partial.append(body[start:stop])
            with trio.fail_after(5):
                while len(got[0]) < min(stop, tail) or len(got[1]) < min(stop, tail) - 1000:
                    await moved.park()
            await wait_all_tasks_blocked()
        assert got == [body[:tail], body[1000:tail], b""]
        await partial.commit()
        await partial.aclose()
    assert got == [body, body[1000:], body[tail + 1 :]]
    assert await read(partial, 5, LARGE) == body[5:]


@pytest.mark.parametrize("ends", ["let go", "commit"])
async def test_what_is_held_back_is_read_when_it_is_let_go_or_committed(store: Store, ends: str) -> None:
    body = BODY[:LARGE]
    partial = await store.begin(digest_of(body), LARGE)
    got = bytearray()

    async def follow() -> None:
        async with aclosing(partial.chunks(0, LARGE)) as chunks:
            async for chunk in chunks:
                got.extend(chunk)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await partial.append(body[:1000])
        partial.hold_back(True)
        await partial.append(body[1000:2000])
        partial.hold_back(True)
        await partial.append(body[2000:])
        await until(lambda: len(got) == 1000)
        await wait_all_tasks_blocked(0.05)
        assert got == body[:1000]
        if ends == "let go":
            partial.hold_back(False)
            await until(lambda: len(got) > 2000)
        await partial.commit()
    assert got == body
    await partial.aclose()


async def test_wrong_content_is_dropped_and_told_to_readers(store: Store) -> None:
    body = BODY[:LARGE]
    digest = digest_of(b"something else")
    partial = await store.begin(digest, LARGE)
    failures: list[BaseException] = []

    async def follow() -> None:
        with pytest.raises(WrongContent) as caught:
            await read(partial, LARGE - 1, LARGE)
        failures.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        nursery.start_soon(follow)
        await partial.append(body)
        await wait_all_tasks_blocked()
        with pytest.raises(WrongContent):
            await partial.commit()
    await partial.aclose()
    assert failures[0] is not failures[1]
    assert store.size_of(digest) is None
    again = await store.begin(digest, LARGE)
    assert again.frontier == 0
    await again.aclose()


async def test_failed_transfer_gives_what_is_there_then_its_error(store: Store) -> None:
    body = BODY[:LARGE]
    partial = await store.begin(digest_of(body), LARGE)
    await partial.append(body[:1000])
    partial.fail(RateLimited("asked for less", 30.0))
    partial.fail(Unavailable("too late to matter"))
    assert await read(partial, 0, 1000) == body[:1000]
    hasher = partial.hash_so_far()
    hasher.update(body[1000:])
    assert hasher.hexdigest() == digest_of(body).hex
    for _ in range(2):
        with pytest.raises(RateLimited, match="asked for less") as caught:
            await read(partial, 0, LARGE)
        assert caught.value.retry_after == 30.0
    await partial.aclose()
    await partial.aclose()


async def test_what_may_be_wrong_is_not_resumed(store: Store) -> None:
    digest = digest_of(BODY[:LARGE])
    partial = await store.begin(digest, LARGE)
    await partial.append(BODY[: LARGE - 10])
    partial.fail(WrongContent("bytes and metadata do not fit"))
    await partial.aclose()
    again = await store.begin(digest, LARGE)
    assert again.frontier == 0
    await again.aclose()


async def test_closing_an_unfinished_transfer_ends_its_readers(store: Store) -> None:
    partial = await store.begin(digest_of(b"x"), LARGE)
    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            with pytest.raises(Unavailable):
                await read(partial, 0, LARGE)

        nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        await partial.aclose()
    with pytest.raises(StoreError):
        await partial.append(b"x")


async def test_transfer_resumes_at_a_whole_piece(store: Store) -> None:
    body = BODY[:LARGE]
    partial = await store.begin(digest_of(body), LARGE)
    await partial.append(body[: 600 * KIB])
    partial.fail(Unavailable("the WAN is down"))
    await partial.aclose()
    again = await store.begin(digest_of(body), LARGE)
    assert again.frontier == 512 * KIB
    await again.append(body[512 * KIB :])
    await again.commit()
    await again.aclose()
    blob = await store.open(digest_of(body))
    assert blob is not None
    assert await read(blob, 0, LARGE) == body


async def test_readers_have_what_is_resumed_by_and_by(store: Store) -> None:
    body = BODY[:LARGE]
    partial = await store.begin(digest_of(body), LARGE)
    await partial.append(body[: 600 * KIB])
    await partial.aclose()
    unwilling = await store.begin(digest_of(body), LARGE, resume=False)
    await unwilling.aclose()
    again = await store.begin(digest_of(body), LARGE, resume=False)
    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            assert await read(again, 0, 512 * KIB) == body[: 512 * KIB]

        nursery.start_soon(follow)
        while await again.resume():
            pass
    assert again.frontier == 512 * KIB
    await again.append(body[512 * KIB :])
    await again.commit()
    await again.aclose()


async def test_more_or_less_than_the_size_is_refused(store: Store) -> None:
    partial = await store.begin(digest_of(b"abc"), 3)
    await partial.append(b"ab")
    with pytest.raises(StoreError):
        await partial.commit()
    with pytest.raises(WrongContent):
        await partial.append(b"cd")
    await partial.append(b"")
    await partial.append(b"c")
    await partial.commit()
    with pytest.raises(StoreError):
        await partial.append(b"")
    await partial.aclose()
    with pytest.raises(WrongContent):
        await store.begin(digest_of(b"abc"), -1)


async def test_one_assembly_of_a_digest_at_a_time(store: Store) -> None:
    partial = await store.begin(digest_of(b"abc"), 3)
    with pytest.raises(StoreError):
        await store.begin(digest_of(b"abc"), 3)
    await partial.aclose()
    await (await store.begin(digest_of(b"abc"), 3)).aclose()


async def test_segments_are_staged_and_appended(store: Store) -> None:
    body = BODY
    digest = digest_of(body)
    partial = await store.begin(digest, len(body))
    await partial.append(body[: SEGMENT - 1])
    assert partial.segment_meta(0) is None
    assert await store.stage(digest, 0) is None
    await partial.append(body[SEGMENT - 1 : SEGMENT])
    assert partial.segment_meta(0) == meta(body, 0)
    staged = await store.stage(digest, 0)
    assert staged == store.staged_path(digest, 0)
    assert staged.read_bytes() == body[:SEGMENT]
    last = store.staged_path(digest, 1)
    last.write_bytes(body[SEGMENT:])
    with pytest.raises(StoreError):
        await partial.append_segment(last, meta(body, 0))
    await partial.append_segment(last, meta(body, 1))
    assert partial.segment_meta(1) == meta(body, 1)
    staged = await store.stage(digest, 1)
    assert staged is not None
    assert staged.read_bytes() == body[SEGMENT:]
    await partial.commit()
    await partial.aclose()
    for index, expected in enumerate([body[:SEGMENT], body[SEGMENT:]]):
        await store.unstage(digest, index)
        await store.unstage(digest, index)
        staged = await store.stage(digest, index)
        assert staged is not None
        assert staged.read_bytes() == expected
        assert await store.segment_meta(digest, index) == meta(body, index)
        own = await store.own_staged(digest, index)
        assert own == staged
        own.write_bytes(b"what the swarm found elsewhere")
    blob = await store.open(digest)
    assert blob is not None
    assert await read(blob, 0, len(body)) == body
    for index in (-1, 2):
        assert await store.segment_meta(digest, index) is None
        assert await store.stage(digest, index) is None
        assert partial.segment_meta(index) is None
    assert await store.stage(digest_of(b"unknown"), 0) is None


async def test_a_segment_begun_is_completed_from_its_staged_file(store: Store) -> None:
    body = BODY[:LARGE]
    partial = await store.begin(digest_of(body), LARGE)
    await partial.append(body[: 300 * KIB])
    staged = store.staged_path(digest_of(body), 0)
    assert await store.staged(digest_of(body)) == frozenset()
    staged.write_bytes(body)
    assert await store.staged(digest_of(body)) == {0}
    await partial.append_segment(staged, meta(body, 0))
    assert partial.segment_meta(0) == meta(body, 0)
    await partial.commit()
    await partial.aclose()
    assert store.size_of(digest_of(body)) == LARGE


async def test_a_segment_is_appended_as_its_pieces_come(store: Store) -> None:
    body = BODY[:LARGE]
    piece = Layout(LARGE).piece_length
    partial = await store.begin(digest_of(body), LARGE)
    staged = store.staged_path(digest_of(body), 0)
    staged.write_bytes(body[: 2 * piece])
    await partial.append_segment(staged, meta(body, 0), 1)
    assert partial.frontier == piece
    with pytest.raises(StoreError):
        await partial.append_segment(staged, meta(body, 0), 1)
    await partial.append_segment(staged, meta(body, 0), 2)
    assert partial.frontier == 2 * piece
    with pytest.raises(StoreError):
        await partial.append_segment(staged, meta(body, 0), 3)
    staged.write_bytes(body)
    await partial.append_segment(staged, meta(body, 0), Layout(LARGE).stripe_count)
    assert partial.segment_meta(0) == meta(body, 0)
    await partial.commit()
    await partial.aclose()


async def test_segments_that_do_not_fit_are_refused(store: Store) -> None:
    body = BODY[:LARGE]
    digest = digest_of(body)
    partial = await store.begin(digest, LARGE)
    staged = store.staged_path(digest, 0)
    right = meta(body, 0)
    with pytest.raises(StoreError):
        await partial.append_segment(staged, right)
    staged.write_bytes(body[:-1])
    for bad in (
        SegmentMeta(digest, LARGE + 1, 0, right.piece_hashes),
        SegmentMeta(digest, LARGE, 0, right.piece_hashes[1:]),
        SegmentMeta(digest, LARGE, 1, right.piece_hashes),
        SegmentMeta(digest_of(b""), LARGE, 0, right.piece_hashes),
        right,  # the file is too short for it
    ):
        with pytest.raises(StoreError):
            await partial.append_segment(staged, bad)
    await partial.append(body[partial.frontier :])
    await partial.commit()
    await partial.aclose()


async def test_small_blob_has_segment_metadata_too(store: Store) -> None:
    body = BODY[: 300 * KIB]
    await store.write(digest_of(body), body)
    assert await store.segment_meta(digest_of(body), 0) == meta(body, 0)


def records() -> Iterator[tuple[Repository, Tag]]:
    yield Repository("docker.io", "library/alpine"), Tag("3.20")
    yield Repository("docker.io", "library/alpine"), Tag("latest")
    yield Repository("[::1]:5000", "a/" * 100 + "b"), Tag("A" * 128)
    yield Repository("[::1]:5000", "a/" * 100 + "c"), Tag("A" * 128)
    yield Repository("..", "../../etc"), Tag("..")


async def test_listings_are_kept(store: Store) -> None:
    repository = Repository("reg.test", "app")
    keys = [ListingKey.tags(repository, ""), ListingKey.referrers(repository, digest_of(b""))]
    bodies = [b'{"tags":["a"]}', b'{"manifests":[]}']
    for key, body in zip(keys, bodies, strict=True):
        assert await store.listing(key) is None
        for at in (1.5, 2.0):
            await store.put_listing(key, ListingRecord(body, at))
    for key, body in zip(keys, bodies, strict=True):
        assert await store.listing(key) == ListingRecord(body, 2.0)


async def test_tags_are_kept(store: Store) -> None:
    for number, (repository, tag) in enumerate(records()):
        assert await store.tag(repository, tag) is None
        for at in (1.5, 2.0):
            descriptor = Descriptor(
                digest_of(b"%d" % number), number, "application/vnd.oci.image.index.v1+json"
            )
            await store.put_tag(repository, tag, TagRecord(descriptor, at))
    for number, (repository, tag) in enumerate(records()):
        record = await store.tag(repository, tag)
        assert record is not None
        assert (record.descriptor.size, record.confirmed_at) == (number, 2.0)


async def test_all_tags_are_listed(store: Store) -> None:
    assert await store.all_tags() == []
    record = TagRecord(Descriptor(digest_of(b"x"), 1, "x/y"), 5.0)
    names = [(Repository("a.test:5000", "b/c"), Tag("v1")), (Repository("a.test:5000", "b/c"), Tag("v2"))]
    names.append((Repository("docker.io", "library/" + "long-" * 40 + "name"), Tag("v" * 128)))
    for repository, tag in names:
        await store.put_tag(repository, tag, record)
    assert sorted(await store.all_tags(), key=lambda item: item[:2]) == [(*name, record) for name in names]


def idle_of(store: Store, digest: Digest) -> float:
    [blob] = [blob for blob in store.stock().held if blob.digest == digest]
    return blob.idle


async def test_stock_tells_age_use_and_what_is_under_way(
    store: Store, autojump_clock: trio.testing.MockClock
) -> None:
    large, small = digest_of(BODY[:LARGE]), digest_of(b"small")
    await assemble(store, BODY[:LARGE])
    await store.write(small, b"small")
    await trio.sleep(1000)
    assert {(blob.digest, blob.size) for blob in store.stock().held} == {(large, LARGE), (small, 5)}
    assert idle_of(store, large) == pytest.approx(1000)
    assert await store.read(small, is_use=False) == b"small"
    assert idle_of(store, small) == pytest.approx(1000)
    assert await store.read(small) == b"small"
    assert idle_of(store, small) == pytest.approx(0)
    reader = await store.open(large, is_use=False)
    assert idle_of(store, large) == pytest.approx(1000)
    reader = await store.open(large)
    assert [blob.in_use for blob in store.stock().held if blob.digest == large] == [True]
    assert idle_of(store, large) == pytest.approx(0)
    del reader
    assert not any(blob.in_use for blob in store.stock().held)
    partial = await store.begin(digest_of(BODY), len(BODY))
    await partial.append(BODY[:LARGE])
    stock = store.stock()
    assert (stock.assembling, stock.pending) == (len(BODY), len(BODY) - LARGE)
    await partial.aclose()
    assert store.stock().assembling == 0


async def test_leftovers_are_what_no_transfer_works_on(store: Store) -> None:
    digest = digest_of(BODY)
    partial = await store.begin(digest, len(BODY))
    await partial.append(BODY[: 2 * 1024 * KIB])
    assert await store.leftovers() == []
    await partial.aclose()
    [rest] = await store.leftovers()
    assert (rest.digest, rest.segment) == (digest, None)
    assert rest.size >= 2 * 1024 * KIB
    again = await store.begin(digest, len(BODY))
    await store.remove(rest)  # taken up by now: it stays
    assert again.frontier == 2 * 1024 * KIB
    await again.append(BODY[2 * 1024 * KIB :])
    await again.commit()
    await again.aclose()
    partial = await store.begin(digest_of(BODY[:LARGE]), LARGE)
    await partial.append(BODY[: 512 * KIB])
    await partial.aclose()
    [rest] = await store.leftovers()
    await store.remove(rest)
    await store.remove(rest)
    assert await store.leftovers() == []
    again = await store.begin(digest_of(BODY[:LARGE]), LARGE)
    assert again.frontier == 0
    await again.aclose()


async def test_disk_space_is_told(store: Store) -> None:
    space = await store.space()
    assert 0 < space.free <= space.total


async def test_tags_are_bounded(store: Store) -> None:
    repository, now = Repository("docker.io", "library/alpine"), time.time()
    for number in range(5):
        record = TagRecord(Descriptor(digest_of(b"x"), 1, "x"), now - 100 * number)
        await store.put_tag(repository, Tag(f"t{number}"), record)
    assert await store.trim_tags(10, 1e6) == 0
    assert await store.trim_tags(3, 0) == 2
    assert await store.trim_tags(3, 0) == 0
    known = [await store.tag(repository, Tag(f"t{number}")) for number in range(5)]
    assert sum(record is not None for record in known) == 3
