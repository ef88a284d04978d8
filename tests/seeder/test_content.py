"""The seeder's content over a scripted origin, in virtual time."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from p2pd.decide.retry import RetryPolicy
from p2pd.model.content import OCI_MANIFEST, Manifest
from p2pd.model.errors import (
    Denied,
    InvalidReference,
    NotFound,
    OriginFault,
    RateLimited,
    StoreError,
    Unavailable,
    WrongContent,
)
from p2pd.model.layout import SEGMENT, Layout
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.content import Blob
from p2pd.ports.store import TagRecord
from seeder.content import SeederContent
from seeder.service import ANSWER_WITHIN
from seeder.transfers import Transfers
from tests.support.memory_store import MemoryStore, meta_of
from tests.support.scripted_origin import ScriptedOrigin, Step

T = TypeVar("T")

APP = Repository("reg.test", "app")
OTHER = Repository("reg.test", "other")
TAG = Tag("v1")
BODY = bytes(range(256)) * 16_000
DIGEST = Digest(hashlib.sha256(BODY).hexdigest())
MANIFEST = Manifest.verified(json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST}).encode(), None)
POLICY = RetryPolicy(failures=3, first=1.0, longest=1.0)


class Bench:
    """A seeder's content with everything around it in memory. Its wall clock is trio's."""

    def __init__(self, nursery: trio.Nursery, staging: Path) -> None:
        self.origin = ScriptedOrigin({DIGEST: BODY}, {TAG: MANIFEST, MANIFEST.descriptor.digest: MANIFEST})
        self.store = MemoryStore(staging)
        self.served: list[tuple[Digest, int]] = []
        transfers = Transfers(self.store, self.origin, nursery, policy=POLICY, rng=lambda: 0.0)
        self.content = SeederContent(
            self.store,
            self.origin,
            transfers,
            on_served=lambda digest, _repository, _size, served: self.served.append((digest, served)),
            clock=trio.current_time,
        )


@pytest.fixture
async def bench(nursery: trio.Nursery, tmp_path: Path) -> Bench:
    return Bench(nursery, tmp_path)


async def read(blob: Blob, start: int = 0, stop: int | None = None) -> bytes:
    async with aclosing(blob.chunks(start, blob.size if stop is None else stop)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def at_once(count: int, call: Callable[[], Awaitable[T]]) -> list[T]:
    results: list[T] = []

    async def one() -> None:
        results.append(await call())

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return results


async def slow_gate() -> None:
    await trio.sleep(1)


async def test_sixteen_callers_are_one_request(bench: Bench, autojump_clock: MockClock) -> None:
    bench.origin.gate = slow_gate
    digest = MANIFEST.descriptor.digest

    async def pull() -> bytes:
        assert (await bench.content.manifest(APP, TAG)).body == MANIFEST.body
        assert (await bench.content.manifest(APP, digest)).body == MANIFEST.body
        assert await bench.content.tags(APP, "")
        assert await bench.content.referrers(APP, digest, None)
        return await read(await bench.content.blob(APP, DIGEST))

    assert await at_once(16, pull) == [BODY] * 16
    assert sorted(bench.origin.calls) == sorted(
        ["resolve", "manifest", "tags", "referrers", "blob_size", "open_blob"]
    )


async def test_an_image_s_layers_come_in_turns(bench: Bench, autojump_clock: MockClock) -> None:
    bodies = [bytes([number]) * len(BODY) for number in range(3)]
    digests = [Digest(hashlib.sha256(body).hexdigest()) for body in bodies]
    bench.origin.blobs.update(zip(digests, bodies, strict=True))
    bench.origin.steps = [Step(chunk=64 * 1024, pause=0.1)]
    blobs = [await bench.content.blob(APP, digest) for digest in digests]
    assert [blob.size for blob in blobs] == 3 * [len(BODY)]
    began, takes = trio.current_time(), len(BODY) / (64 * 1024) * 0.1
    assert await read(blobs[1], 0, 1) == bodies[1][:1]
    assert trio.current_time() - began == pytest.approx(takes / 2, rel=0.2)
    assert len(bench.origin.asked) == 2
    assert await read(blobs[2]) == bodies[2]
    assert trio.current_time() - began > 1.9 * takes
    assert len(bench.origin.asked) == 3


async def test_a_blob_is_readable_while_it_comes_but_for_its_last_piece(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.origin.steps = [Step(chunk=64 * 1024, pause=0.1)]
    blob = await bench.content.blob(APP, DIGEST)
    assert blob.size == len(BODY)
    began = trio.current_time()
    assert await read(blob, 0, 64 * 1024) == BODY[: 64 * 1024]
    assert trio.current_time() - began < 0.3
    beyond = len(BODY) - 2 * Layout(len(BODY)).piece_length
    assert await read(blob, beyond, beyond + 10) == BODY[beyond : beyond + 10]
    assert bench.store.size_of(DIGEST) is None
    assert await read(blob, len(BODY) - 1) == BODY[-1:]
    assert bench.store.size_of(DIGEST) == len(BODY)
    assert await read(blob) == BODY
    assert bench.origin.calls.count("open_blob") == 1


async def test_a_client_that_leaves_harms_nobody(bench: Bench, autojump_clock: MockClock) -> None:
    bench.origin.steps = [Step(chunk=64 * 1024, pause=0.1)]
    with trio.move_on_after(1):
        await read(await bench.content.blob(APP, DIGEST))
    with trio.move_on_after(0):
        await bench.content.blob(APP, DIGEST)
    await trio.sleep(30)
    assert bench.store.size_of(DIGEST) == len(BODY)
    assert bench.origin.calls.count("open_blob") == 1


async def test_a_cut_is_resumed_by_range_under_the_readers(bench: Bench, autojump_clock: MockClock) -> None:
    bench.origin.steps = [Step(cut=1_000_000), Step()]
    assert await read(await bench.content.blob(APP, DIGEST)) == BODY
    assert bench.origin.asked == [(0, None), (1_000_000, None)]


async def test_a_failed_transfer_fails_fast_for_a_while_then_goes_on_from_what_is_there(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.origin.steps = [Step(cut=1_000_000), Step(error=Unavailable("the cable is cut"))]
    blob = await bench.content.blob(APP, DIGEST)
    with pytest.raises(Unavailable, match="cable"):
        await read(blob)
    calls = len(bench.origin.calls)
    with pytest.raises(Unavailable, match="cable"):
        await bench.content.blob(APP, DIGEST)
    assert len(bench.origin.calls) == calls
    assert bench.store.partials == {}
    await trio.sleep(5)
    bench.origin.steps = [Step()]
    bench.origin.asked.clear()
    assert await read(await bench.content.blob(APP, DIGEST)) == BODY
    piece = Layout(len(BODY)).piece_length
    assert bench.origin.asked == [(1_000_000 // piece * piece, None)]


async def test_what_an_earlier_run_left_is_readable_while_it_is_hashed_again(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.store.partial_bodies[DIGEST, len(BODY)] = bytearray(BODY[: 2 * 1024 * 1024])
    bench.store.resume_s = 30.0
    blob = await bench.content.blob(APP, DIGEST)
    assert await read(blob, 0, 1024) == BODY[:1024]
    assert trio.current_time() < 1
    assert bench.origin.asked == []
    assert await read(blob) == BODY
    assert bench.origin.asked == [(2 * 1024 * 1024, None)]


async def test_wrong_content_is_never_held_nor_given_whole_nor_resumed(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.origin.steps = [Step(body=BODY[:-1] + b"!")]
    blob = await bench.content.blob(APP, DIGEST)
    received = bytearray()

    async def drain() -> None:
        async for chunk in blob.chunks(0, blob.size):
            received.extend(chunk)

    with pytest.raises(WrongContent):
        await drain()
    assert len(received) < len(BODY)
    assert bench.store.blobs == {}
    assert bench.store.partial_bodies == {}
    await trio.sleep(5)
    bench.origin.steps = [Step()]
    assert await read(await bench.content.blob(APP, DIGEST)) == BODY


@pytest.mark.parametrize("error", [NotFound("x"), Denied("x"), Unavailable("x"), RateLimited("x", 9.0)])
async def test_an_origin_that_refuses_is_told_to_every_caller(
    error: OriginFault, bench: Bench, autojump_clock: MockClock
) -> None:
    bench.origin.gate = slow_gate
    bench.origin.error = error
    failures: list[Exception] = []

    async def ask() -> None:
        for call in (
            bench.content.blob(APP, DIGEST),
            bench.content.manifest(APP, TAG),
            bench.content.manifest(APP, MANIFEST.descriptor.digest),
        ):
            with pytest.raises(type(error)) as caught:
                await call
            failures.append(caught.value)

    await at_once(4, ask)
    assert len(set(map(id, failures))) == len(failures)
    assert bench.origin.calls.count("blob_size") == 1


async def test_what_one_repository_is_denied_another_may_have(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.origin.gate = slow_gate
    bench.origin.error = Denied("not yours")
    results: list[str] = []

    async def ask(repository: Repository) -> None:
        try:
            await bench.content.blob(repository, DIGEST)
            results.append(f"{repository.name} has it")
        except Denied:
            results.append(f"{repository.name} is denied")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, APP)
        await trio.sleep(0.5)
        nursery.start_soon(ask, OTHER)
        await trio.sleep(1)
        bench.origin.error = None
    assert sorted(results) == ["app is denied", "other has it"]


async def test_transfers_at_once_are_bounded(
    nursery: trio.Nursery, bench: Bench, autojump_clock: MockClock
) -> None:
    transfers = Transfers(bench.store, bench.origin, nursery, at_once=2)
    bench.origin.gate = slow_gate
    digests = [Digest(f"{number:064x}") for number in range(6)]

    async def ask(digest: Digest) -> None:
        with pytest.raises(NotFound):
            await transfers.obtain(APP, digest)

    async with trio.open_nursery() as callers:
        for digest in digests:
            callers.start_soon(ask, digest)
    assert trio.current_time() == pytest.approx(3, abs=0.1)


async def test_a_tag_is_asked_again_only_after_its_ttl(bench: Bench, autojump_clock: MockClock) -> None:
    for _ in range(3):
        manifest = await bench.content.manifest(APP, TAG)
        assert (manifest.body, manifest.stale) == (MANIFEST.body, False)
    await trio.sleep(4.9)
    await bench.content.manifest(APP, TAG)
    assert bench.origin.calls == ["resolve", "manifest"]
    await trio.sleep(0.2)
    await bench.content.manifest(APP, TAG)
    assert bench.origin.calls == ["resolve", "manifest", "resolve"]


@pytest.mark.parametrize("error", [Unavailable("x"), RateLimited("x")])
async def test_a_tag_is_served_stale_while_nobody_can_be_asked(
    error: OriginFault, bench: Bench, autojump_clock: MockClock
) -> None:
    await bench.content.manifest(APP, TAG)
    await trio.sleep(1000)
    bench.origin.error = error
    manifest = await bench.content.manifest(APP, TAG)
    assert (manifest.body, manifest.stale) == (MANIFEST.body, True)
    bench.origin.error = None
    assert not (await bench.content.manifest(APP, TAG)).stale


async def test_a_memory_that_cannot_be_read_hinders_no_answer(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StoreError("bad sector")

    monkeypatch.setattr(bench.store, "tag", fail)
    monkeypatch.setattr(bench.store, "listing", fail)
    assert (await bench.content.manifest(APP, TAG)).body == MANIFEST.body
    assert not (await bench.content.tags(APP, "")).stale


async def test_an_origin_that_hangs_is_answered_for_from_memory_in_time(
    bench: Bench, autojump_clock: MockClock
) -> None:
    await bench.content.manifest(APP, TAG)
    await bench.content.tags(APP, "")
    await trio.sleep(1000)
    bench.origin.gate = trio.sleep_forever
    with trio.fail_after(ANSWER_WITHIN):
        assert (await bench.content.manifest(APP, TAG)).stale
    with trio.fail_after(ANSWER_WITHIN):
        assert (await bench.content.tags(APP, "")).stale
    with trio.move_on_after(100) as waits:  # nothing to fall back on: the front end decides how long
        await bench.content.tags(OTHER, "")
    assert waits.cancelled_caught


async def test_a_tag_that_is_gone_is_not_served_stale(bench: Bench, autojump_clock: MockClock) -> None:
    await bench.content.manifest(APP, TAG)
    await trio.sleep(1000)
    bench.origin.error = NotFound("gone")
    with pytest.raises(NotFound):
        await bench.content.manifest(APP, TAG)


async def test_a_tag_confirmed_in_the_future_is_asked_again(bench: Bench, autojump_clock: MockClock) -> None:
    bench.store.tags[APP, TAG] = TagRecord(MANIFEST.descriptor, trio.current_time() + 1e6)
    await bench.content.manifest(APP, TAG)
    assert "resolve" in bench.origin.calls


async def test_a_rotten_manifest_is_fetched_anew(bench: Bench, autojump_clock: MockClock) -> None:
    digest = MANIFEST.descriptor.digest
    await bench.content.manifest(APP, digest)
    bench.store.blobs[digest] = b"rot"
    assert (await bench.content.manifest(APP, digest)).body == MANIFEST.body
    assert bench.origin.calls == ["manifest", "manifest"]


async def test_segment_metadata_of_a_blob_on_its_way_and_held(
    bench: Bench, autojump_clock: MockClock
) -> None:
    body = bytes(range(251)) * (2 * SEGMENT // 251 + 5)
    digest = Digest(hashlib.sha256(body).hexdigest())
    bench.origin.blobs[digest] = body
    bench.origin.steps = [Step(chunk=1024 * 1024, pause=1.0)]
    for index, about in ((0, 16), (2, 33), (1, 33)):
        meta = await bench.content.segment_meta(APP, digest, len(body), index)
        assert meta == meta_of(digest, body, len(body), index)
        assert trio.current_time() == pytest.approx(about, abs=1.5)
    assert bench.store.size_of(digest) == len(body)
    assert await bench.content.segment_meta(APP, digest, len(body), 1) == meta_of(digest, body, len(body), 1)
    assert bench.origin.calls.count("open_blob") == 1


async def test_segment_metadata_that_cannot_be(bench: Bench, autojump_clock: MockClock) -> None:
    for size, index in ((0, 0), (-1, 0), (len(BODY), 1), (len(BODY), -1)):
        with pytest.raises(InvalidReference):
            await bench.content.segment_meta(APP, DIGEST, size, index)
    assert bench.origin.calls == []
    for _ in ("on its way", "held"):
        with pytest.raises(NotFound, match="bytes, not"):
            await bench.content.segment_meta(APP, DIGEST, len(BODY) + 1, 0)
        await trio.sleep(60)


async def test_what_was_served_is_noted(bench: Bench, autojump_clock: MockClock) -> None:
    await read(await bench.content.blob(APP, DIGEST))
    await read(await bench.content.blob(APP, DIGEST), 10, 110)
    assert bench.served == [(DIGEST, len(BODY)), (DIGEST, 100)]


async def test_a_stop_of_the_service_leaves_what_came(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, tmp_path)
        bench.origin.steps = [Step(chunk=64 * 1024, pause=0.1)]
        await bench.content.blob(APP, DIGEST)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert bench.store.partials == {}
    assert BODY.startswith(bytes(bench.store.partial_bodies[DIGEST, len(BODY)]))
    assert len(bench.store.partial_bodies[DIGEST, len(BODY)]) > 1_000_000
