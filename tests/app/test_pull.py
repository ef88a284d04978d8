import hashlib
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from benchmarks.testbed.registry import FaultRegistry
from p2pd.app.pull import pull_blob
from p2pd.decide.retry import RetryPolicy
from p2pd.io.origin import OriginClient
from p2pd.model.errors import Denied, NotFound, OriginFault, RateLimited, StoreFull, Unavailable, WrongContent
from p2pd.model.reference import Digest, Repository
from p2pd.model.upstream import UpstreamSpec
from tests.support.memory_store import MemoryPartial, MemoryStore
from tests.support.scripted_origin import ScriptedOrigin, Step

APP = Repository("reg.test", "app")
BODY = bytes(range(256)) * 12_000
DIGEST = Digest(hashlib.sha256(BODY).hexdigest())
POLICY = RetryPolicy(failures=4, first=1.0, longest=8.0, patience=100.0)


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    return MemoryStore(tmp_path)


@pytest.fixture
async def partial(store: MemoryStore) -> MemoryPartial:
    return await store.begin(DIGEST, len(BODY))


def origin(*steps: Step) -> ScriptedOrigin:
    return ScriptedOrigin({DIGEST: BODY}, steps=list(steps))


async def pull(source: ScriptedOrigin, partial: MemoryPartial, stop: int | None = None) -> None:
    await pull_blob(source, APP, partial, stop=stop, policy=POLICY, rng=lambda: 0.0)


async def test_one_request_takes_it_all(partial: MemoryPartial, autojump_clock: MockClock) -> None:
    source = origin(Step())
    await pull(source, partial)
    assert source.asked == [(0, None)]
    await partial.commit()


async def test_a_cut_is_resumed_where_it_came(partial: MemoryPartial, autojump_clock: MockClock) -> None:
    source = origin(Step(cut=100_001), Step(cut=1_000_000), Step())
    await pull(source, partial)
    assert source.asked == [(0, None), (100_001, None), (1_100_001, None)]
    await partial.commit()


async def test_up_to_a_stop_and_on_from_there(partial: MemoryPartial, autojump_clock: MockClock) -> None:
    source = origin(Step())
    await pull(source, partial, stop=1000)
    assert partial.frontier == 1000
    await pull(source, partial, stop=1000)
    await pull(source, partial, stop=len(BODY))
    assert source.asked == [(0, 1000), (1000, None)]
    await partial.commit()


async def test_a_server_without_ranges(partial: MemoryPartial, autojump_clock: MockClock) -> None:
    source = origin(Step(cut=100_000), Step(whole=True, chunk=7777))
    await pull(source, partial, stop=2_000_000)
    assert partial.frontier == 2_000_000
    await pull(source, partial)
    await partial.commit()


async def test_progress_forgives_earlier_failures(partial: MemoryPartial, autojump_clock: MockClock) -> None:
    source = origin(*[Step(cut=10_000)] * 50, Step())
    await pull(source, partial)
    assert len(source.asked) == 51
    # Each time the first delay, halved by the jitter of zero.
    assert trio.current_time() == pytest.approx(50 * 0.5, abs=2.1)


async def test_without_progress_it_gives_up_with_the_last_error(
    partial: MemoryPartial, autojump_clock: MockClock
) -> None:
    source = origin(
        Step(cut=500),
        Step(error=Unavailable("a")),
        Step(error=Unavailable("b")),
        Step(error=Unavailable("c")),
    )
    with pytest.raises(Unavailable, match="c"):
        await pull(source, partial)
    assert partial.frontier == 500
    assert len(source.asked) == 4
    assert trio.current_time() == pytest.approx(0.5 + 1 + 2, abs=0.1)


async def test_a_rate_limit_is_waited_for(partial: MemoryPartial, autojump_clock: MockClock) -> None:
    await pull(origin(Step(error=RateLimited("slow", 20.0)), Step()), partial)
    assert trio.current_time() == pytest.approx(20.25, abs=0.5)


@pytest.mark.parametrize("error", [NotFound("x"), Denied("x"), WrongContent("x")])
async def test_what_cannot_be_helped_ends_it(
    error: OriginFault, partial: MemoryPartial, autojump_clock: MockClock
) -> None:
    source = origin(Step(error=error))
    with pytest.raises(type(error)):
        await pull(source, partial)
    assert len(source.asked) == 1


@pytest.mark.parametrize("size", [len(BODY) - 1, len(BODY) + 1, 0])
async def test_another_size_is_wrong_content(
    size: int, partial: MemoryPartial, autojump_clock: MockClock
) -> None:
    with pytest.raises(WrongContent, match="bytes, not"):
        await pull(origin(Step(size=size)), partial)
    assert partial.frontier == 0


async def test_an_empty_answer_does_not_spin(partial: MemoryPartial, autojump_clock: MockClock) -> None:
    source = origin(Step(body=b"", size=len(BODY)))
    with pytest.raises(Unavailable):
        await pull(source, partial)
    assert len(source.asked) == POLICY.failures


async def test_slow_bytes_are_not_held_back(partial: MemoryPartial, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull, origin(Step(chunk=1000, pause=1.0)), partial)
        await trio.sleep(3.05)
        assert partial.frontier == 3000
        nursery.cancel_scope.cancel()


async def test_fast_small_chunks_are_joined(
    partial: MemoryPartial, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    append = MemoryPartial.append

    async def counted(self: MemoryPartial, data: bytes) -> None:
        sizes.append(len(data))
        await append(self, data)

    monkeypatch.setattr(MemoryPartial, "append", counted)
    await pull(origin(Step(chunk=1500)), partial)
    assert len(sizes) <= len(BODY) // (256 * 1024) + 1
    assert max(sizes) <= 2 * 1024 * 1024


async def test_a_full_disk_ends_it_as_it_is(
    partial: MemoryPartial, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(self: MemoryPartial, data: bytes) -> None:
        raise StoreFull("no room")

    monkeypatch.setattr(MemoryPartial, "append", full)
    source = origin(Step(chunk=1000, pause=1.0))
    with pytest.raises(StoreFull):
        await pull(source, partial)
    assert trio.current_time() < 5


async def test_cancelled_anywhere_it_leaves_a_prefix_and_can_be_resumed(
    store: MemoryStore, autojump_clock: MockClock
) -> None:
    for moment in range(12):
        partial = await store.begin(DIGEST, len(BODY))
        with trio.move_on_after(moment * 0.3):
            await pull(origin(Step(cut=300_000, pause=0.1), Step(pause=0.05)), partial)
        assert BODY.startswith(bytes(store.partial_bodies[DIGEST, len(BODY)]))
        await pull(origin(Step()), partial)
        await partial.commit()
        await partial.aclose()
        await store.drop(DIGEST)


async def test_an_answer_that_drips_is_asked_for_anew(
    partial: MemoryPartial, autojump_clock: MockClock
) -> None:
    source = origin(Step(chunk=1000, pause=1.0), Step())
    await pull(source, partial)
    assert len(source.asked) == 2
    assert 0 < source.asked[1][0] <= 16_000, "what dripped in is kept"
    assert trio.current_time() < 20
    await partial.commit()


async def test_a_slow_but_steady_answer_is_borne(partial: MemoryPartial, autojump_clock: MockClock) -> None:
    source = origin(Step(chunk=4000, pause=0.5))
    await pull(source, partial)
    assert len(source.asked) == 1


async def test_who_waited_for_its_turn_is_not_said_to_drip(
    partial: MemoryPartial, autojump_clock: MockClock
) -> None:
    source = origin(Step(chunk=512 * 1024, pause=0.5))
    asked: list[int] = []

    async def turn(frontier: int) -> None:
        asked.append(frontier)
        if frontier and trio.current_time() < 39.9:
            await trio.sleep_until(39.9)

    await pull_blob(source, APP, partial, policy=POLICY, rng=lambda: 0.0, turn=turn)
    assert len(source.asked) == 1
    assert asked[0] == 0
    assert asked == sorted(asked)
    await partial.commit()


async def test_blobs_share_a_connection(store: MemoryStore, nursery: trio.Nursery) -> None:
    registry = FaultRegistry()
    await nursery.start(registry.run)
    source = OriginClient({APP.registry: UpstreamSpec(APP.registry, registry.url)})
    for body in (BODY, BODY[1:], BODY[2:]):
        partial = await store.begin(registry.add_blob(body), len(body))
        await pull_blob(source, APP, partial)
        await partial.commit()
    await source.aclose()
    assert registry.connections == 1
