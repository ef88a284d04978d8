"""The shelf: what is loaded, what is pinned, and what leaves when."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pd.app.shelf import IDLE_AFTER, UNPINNED_LIMIT, Shelf
from p2pd.io.store import FileStore
from p2pd.model.errors import StoreError
from p2pd.model.layout import MIB, SegmentMeta
from p2pd.model.reference import Digest
from tests.support.memory_origin import digest_of
from tests.support.memory_store import MemoryStore, meta_of
from tests.support.memory_swarm import MemoryEngine

BODIES = [random.Random(number).randbytes(MIB + 1) for number in range(UNPINNED_LIMIT + 3)]
DIGESTS = [digest_of(body) for body in BODIES]


@dataclass
class Rack:
    engine: MemoryEngine
    store: MemoryStore
    shelf: Shelf

    def loaded(self) -> list[Digest]:
        return [segment.meta.digest for segment in self.engine.loaded]

    def staged(self) -> int:
        return len(list(self.store.staging.iterdir()))


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    engine, store = MemoryEngine(), MemoryStore(tmp_path)
    store.blobs.update(zip(DIGESTS, BODIES, strict=True))
    return Rack(engine, store, Shelf(engine, store))


def meta(number: int) -> SegmentMeta:
    found = meta_of(DIGESTS[number], BODIES[number], len(BODIES[number]), 0)
    assert found is not None
    return found


async def test_offered_once_however_many_ask(rack: Rack) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(rack.shelf.offer, DIGESTS[0], 0)
    assert rack.loaded() == [DIGESTS[0]]
    assert rack.shelf.get(DIGESTS[0], 0) is rack.engine.loaded[0]


async def test_what_the_store_has_not_is_not_offered(rack: Rack) -> None:
    assert await rack.shelf.offer(Digest("0" * 64), 0) is None
    assert await rack.shelf.offer(DIGESTS[0], 7) is None
    assert rack.loaded() == []


async def test_what_is_loaded_to_be_completed_is_no_longer_a_blobs_file(tmp_path: Path) -> None:
    """Else what peers give, by hashes that may be another's, would be written to bytes that were checked."""
    store = await FileStore.open_dir(tmp_path)
    staged = store.staged_path(DIGESTS[0], 0)
    staged.write_bytes(BODIES[0])
    assembly = await store.begin(DIGESTS[0], len(BODIES[0]))
    await assembly.append_segment(staged, meta(0), 1)
    assert staged.stat().st_nlink == 2
    await Shelf(MemoryEngine(), store).load(meta(0))
    assert staged.stat().st_nlink == 1
    assert staged.read_bytes() == BODIES[0]
    await assembly.aclose()
    store.close()


async def test_the_least_recently_asked_for_makes_room(rack: Rack) -> None:
    for digest in DIGESTS[:UNPINNED_LIMIT]:
        await rack.shelf.offer(digest, 0)
    rack.shelf.get(DIGESTS[0], 0)
    await rack.shelf.offer(DIGESTS[UNPINNED_LIMIT], 0)
    assert len(rack.loaded()) == UNPINNED_LIMIT
    assert DIGESTS[0] in rack.loaded()
    assert DIGESTS[1] not in rack.loaded()
    assert rack.staged() == UNPINNED_LIMIT, "its staged copy went with it"


async def test_pins_hold_and_do_not_count(rack: Rack) -> None:
    await rack.shelf.load(meta(0))
    await rack.shelf.load(meta(0))
    for digest in DIGESTS[1:]:
        await rack.shelf.offer(digest, 0)
    assert len(rack.loaded()) == UNPINNED_LIMIT + 1
    assert DIGESTS[0] in rack.loaded()
    await rack.shelf.release(DIGESTS[0], 0, keep=False)
    assert DIGESTS[0] in rack.loaded(), "the other pin still holds it"
    await rack.shelf.release(DIGESTS[0], 0, keep=False)
    assert DIGESTS[0] not in rack.loaded()


async def test_kept_for_peers_until_idle(rack: Rack, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rack.shelf.tend)
        await rack.shelf.load(meta(0))
        await rack.shelf.load(meta(1))
        await rack.shelf.release(DIGESTS[0], 0, keep=True)
        await trio.sleep(IDLE_AFTER * 0.9)
        assert set(rack.loaded()) == {DIGESTS[0], DIGESTS[1]}
        await trio.sleep(IDLE_AFTER * 0.5)
        assert rack.loaded() == [DIGESTS[1]], "a pin outlives any idleness"
        nursery.cancel_scope.cancel()


async def test_other_metadata_replaces_what_is_loaded(rack: Rack) -> None:
    await rack.shelf.offer(DIGESTS[0], 0)
    wrong = SegmentMeta(DIGESTS[0], len(BODIES[0]), 0, bytes(len(meta(0).piece_hashes)))
    segment = await rack.shelf.load(wrong)
    assert segment.meta == wrong
    assert rack.loaded() == [DIGESTS[0]]


async def test_an_engine_that_fails_leaves_nothing(rack: Rack) -> None:
    rack.engine.fault = StoreError("disk")
    with pytest.raises(StoreError):
        await rack.shelf.load(meta(0))
    with pytest.raises(StoreError):
        await rack.shelf.offer(DIGESTS[0], 0)
    rack.engine.fault = None
    assert rack.staged() == 0
    assert rack.shelf.get(DIGESTS[0], 0) is None
    await rack.shelf.load(meta(0))
    await rack.shelf.release(DIGESTS[0], 0, keep=False)
    assert rack.loaded() == []


async def test_a_release_is_never_lost_to_a_cancellation(rack: Rack, autojump_clock: MockClock) -> None:
    await rack.shelf.load(meta(0))
    with trio.CancelScope() as scope:
        scope.cancel()
        await rack.shelf.release(DIGESTS[0], 0, keep=False)
    assert rack.loaded() == []
    assert rack.staged() == 0
