"""The ladder over the WAN: who is asked, in what order, for how long, and what is counted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from benchmarks.testbed.registry import FaultRegistry
from p2pd.app.metrics import Metrics
from p2pd.app.wan import ORIGIN_DEADLINE, SEEDER_DEADLINE, Reader, Wan
from p2pd.decide.plan import Way
from p2pd.io.origin import OriginClient
from p2pd.io.seeder_client import SEGMENT_WAIT
from p2pd.model.content import Holding
from p2pd.model.errors import (
    Denied,
    NotFound,
    OriginFault,
    P2pdError,
    RateLimited,
    Unavailable,
    WrongContent,
)
from p2pd.model.layout import MIB
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.model.upstream import UpstreamSpec
from p2pd.ports.origin import BlobStream
from seeder.service import ANSWER_WITHIN
from tests.support.memory_origin import LINE_PATIENCE, MemoryOrigin
from tests.support.memory_site import REPOSITORY

BODY = bytes(range(256)) * 2000
TAG = Tag("v1")
OTHER = Repository("other.test", "app")


class Ladder:
    def __init__(self, seeders: int = 1, *, direct: bool = True) -> None:
        self.seeders = [MemoryOrigin() for _ in range(seeders)]
        self.origin = MemoryOrigin()
        self.metrics = Metrics()
        named = [(f"s{number}", seeder) for number, seeder in enumerate(self.seeders)]
        self.wan = Wan(named, self.origin if direct else None, self.metrics)
        for source in (*self.seeders, self.origin):
            self.digest = source.put(BODY)
            source.tag_of["v1"] = self.digest

    def seeder_up(self, seeder: str = "s0") -> float | None:
        return self.metrics.registry.get_sample_value("p2pd_source_up", {"source": seeder})

    def upstream_up(self, source: str, registry: str = REPOSITORY.registry) -> float | None:
        return self.metrics.registry.get_sample_value(
            "p2pd_upstream_up", {"source": source, "registry": registry}
        )


def hung(source: MemoryOrigin) -> None:
    async def never(*_: object) -> None:
        await trio.sleep_forever()

    source.blob_size = never  # type: ignore[assignment, method-assign] # hangs instead of answering


async def test_the_first_seeder_that_is_up_is_asked(autojump_clock: MockClock) -> None:
    ladder = Ladder(seeders=2)
    assert await ladder.wan.blob_size(REPOSITORY, ladder.digest) == len(BODY)
    ladder.seeders[0].fault = Unavailable("down")
    assert await ladder.wan.blob_size(REPOSITORY, ladder.digest) == len(BODY)
    assert (await ladder.wan.resolve(REPOSITORY, TAG)).digest == ladder.digest
    assert [source.asked.total() for source in (*ladder.seeders, ladder.origin)] == [2, 2, 0]
    assert (ladder.seeder_up("s0"), ladder.seeder_up("s1")) == (0, 1)


async def test_down_and_up_again(autojump_clock: MockClock) -> None:
    ladder = Ladder()
    (seeder,) = ladder.seeders
    assert ladder.wan.way(REPOSITORY) is Way.SEEDER
    seeder.fault = Unavailable("down")
    await ladder.wan.blob_size(REPOSITORY, ladder.digest)
    assert ladder.wan.way(REPOSITORY) is Way.ORIGIN
    await ladder.wan.blob_size(REPOSITORY, ladder.digest)
    assert seeder.asked.total() == 1, "left alone for a second"
    await trio.sleep(1.0)
    assert ladder.wan.way(REPOSITORY) is Way.SEEDER
    await ladder.wan.blob_size(REPOSITORY, ladder.digest)
    await trio.sleep(1.5)
    assert ladder.seeder_up() == 0
    assert ladder.wan.way(REPOSITORY) is Way.ORIGIN, "the second failure costs two seconds"
    seeder.fault = None
    await trio.sleep(0.5)
    await ladder.wan.blob_size(REPOSITORY, ladder.digest)
    assert ladder.seeder_up() == 1


async def test_a_question_in_a_hurry_is_followed_by_a_patient_one(autojump_clock: MockClock) -> None:
    ladder = Ladder()
    seeder, said = ladder.seeders[0], list[tuple[Holding | None, float]]()
    seeder.line[ladder.digest] = waits = trio.Event()

    async def ask() -> None:
        await ladder.wan.segment(
            REPOSITORY,
            ladder.digest,
            len(BODY),
            0,
            lambda holding: said.append((holding, trio.current_time())),
            is_patient=False,
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(SEGMENT_WAIT + 5)
        waits.set()
    assert [holding for holding, _ in said] == [Holding.PULLING, Holding.PULLING, Holding.WHOLE]
    assert [at for _, at in said] == pytest.approx([0, SEGMENT_WAIT, SEGMENT_WAIT + 5], abs=0.1)
    assert seeder.asked["segment"] == 3
    assert ladder.seeder_up() == 1


async def test_that_hashes_have_yet_to_come_says_nothing_of_the_registry(autojump_clock: MockClock) -> None:
    ladder = Ladder()
    (seeder,) = ladder.seeders
    seeder.fault = beyond(RateLimited("slow down", 20.0))
    await ladder.wan.blob_size(REPOSITORY, ladder.digest)
    assert (ladder.seeder_up(), ladder.upstream_up("s0")) == (1, 0)
    await trio.sleep(20)
    seeder.fault = None
    seeder.line[ladder.digest] = trio.Event()
    with trio.move_on_after(5):
        await ladder.wan.segment(REPOSITORY, ladder.digest, len(BODY), 0, is_patient=False)
    assert seeder.asked["segment"] == 2
    assert (ladder.seeder_up(), ladder.upstream_up("s0")) == (1, 0)


async def test_a_seeder_that_says_nothing_holds_the_hurried_back_and_is_not_blamed(
    autojump_clock: MockClock,
) -> None:
    ladder = Ladder()
    seeder, said = ladder.seeders[0], list[Holding | None]()
    seeder.is_old = True
    seeder.line[ladder.digest] = waits = trio.Event()

    async def ask() -> None:
        await ladder.wan.segment(REPOSITORY, ladder.digest, len(BODY), 0, said.append, is_patient=False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(SEGMENT_WAIT + 5)
        waits.set()
    assert said == [None]
    assert seeder.asked["segment"] == 2
    assert ladder.seeder_up() == 1


async def test_each_range_of_a_seeder_tells_how_much_it_has(autojump_clock: MockClock) -> None:
    ladder = Ladder()
    said: list[Holding | None] = []

    async def read(way: Way) -> None:
        await ladder.wan.read_range(
            way, REPOSITORY, ladder.digest, len(BODY), (0, 10), Reader(lambda _: None, on_holding=said.append)
        )

    await read(Way.SEEDER)
    ladder.seeders[0].is_old = True
    await read(Way.SEEDER)
    await read(Way.ORIGIN)
    assert said == [Holding.WHOLE, None], "an origin's word would be about itself"


async def test_who_hangs_has_a_deadline(autojump_clock: MockClock) -> None:
    ladder = Ladder()
    hung(ladder.seeders[0])
    assert await ladder.wan.blob_size(REPOSITORY, ladder.digest) == len(BODY)
    assert trio.current_time() == pytest.approx(SEEDER_DEADLINE)
    hung(ladder.origin)
    with pytest.raises(Unavailable, match="origin did not answer"):
        await ladder.wan.blob_size(REPOSITORY, ladder.digest)
    assert trio.current_time() <= 2 * SEEDER_DEADLINE + ORIGIN_DEADLINE + 0.1


@pytest.mark.parametrize(
    ("seeder", "origin", "told"),
    [
        (NotFound("s"), Unavailable("o"), NotFound),
        (Unavailable("s"), NotFound("o"), NotFound),
        (Denied("s"), Unavailable("o"), Denied),
        (Unavailable("s"), RateLimited("o", 5.0), RateLimited),
        (WrongContent("s"), Unavailable("o"), Unavailable),
    ],
)
async def test_a_refusal_is_told_rather_than_a_failure(
    seeder: P2pdError, origin: P2pdError, told: type[P2pdError], autojump_clock: MockClock
) -> None:
    ladder = Ladder()
    ladder.seeders[0].fault, ladder.origin.fault = seeder, origin
    with pytest.raises(told):
        await ladder.wan.manifest(REPOSITORY, TAG)


@pytest.mark.parametrize("answer", [NotFound("x"), Denied("x"), WrongContent("x")])
async def test_an_answer_about_one_object_takes_nobody_down(
    answer: P2pdError, autojump_clock: MockClock
) -> None:
    ladder = Ladder()
    ladder.seeders[0].fault = answer
    await ladder.wan.manifest(REPOSITORY, TAG)
    assert ladder.wan.way(REPOSITORY) is Way.SEEDER
    assert ladder.seeder_up() == 1


async def test_a_rate_limit_is_kept_within_reason(autojump_clock: MockClock) -> None:
    ladder = Ladder(direct=False)
    ladder.seeders[0].fault = RateLimited("slow", 3600.0)
    with pytest.raises(RateLimited):
        await ladder.wan.manifest(REPOSITORY, TAG)
    await trio.sleep(29)
    assert ladder.wan.way(REPOSITORY) is Way.NONE
    with pytest.raises(Unavailable, match="is the WAN up"):
        await ladder.wan.manifest(REPOSITORY, TAG)
    await trio.sleep(1)
    assert ladder.wan.way(REPOSITORY) is Way.SEEDER


async def test_small_blobs_are_small(autojump_clock: MockClock) -> None:
    ladder = Ladder(direct=False)
    assert await ladder.wan.small_blob(REPOSITORY, ladder.digest, MIB) == BODY
    with pytest.raises(WrongContent, match="more than the 1000 expected"):
        await ladder.wan.small_blob(REPOSITORY, ladder.digest, 1000)


async def test_ranges(autojump_clock: MockClock) -> None:
    ladder = Ladder()
    came: list[int] = []

    def read(way: Way, size: int) -> Awaitable[bytes]:
        return ladder.wan.read_range(
            way, REPOSITORY, ladder.digest, size, (1000, 200_000), Reader(came.append)
        )

    for way, source in ((Way.SEEDER, ladder.seeders[0]), (Way.ORIGIN, ladder.origin)):
        came.clear()
        assert await read(way, len(BODY)) == BODY[1000:200_000]
        assert came[0] == 0
        assert sum(came) == 199_000
        assert source.given[ladder.digest] == 199_000
        with pytest.raises(WrongContent):
            await read(way, len(BODY) + 1)
    ladder.seeders[0].fault = Unavailable("down")
    with pytest.raises(Unavailable):
        await read(Way.SEEDER, len(BODY))
    with pytest.raises(Unavailable, match="no seeder answers"):
        await read(Way.SEEDER, len(BODY))


class Stingy(MemoryOrigin):
    """Gives less than it is asked for, as RFC 9110 §14.2 allows."""

    @asynccontextmanager
    async def open_blob(
        self, repository: Repository, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncGenerator[BlobStream, None]:
        assert stop is not None
        async with super().open_blob(repository, digest, start, min(stop, start + 70_000)) as stream:
            yield stream


async def test_a_range_in_several_answers(autojump_clock: MockClock) -> None:
    source = Stingy()
    wan = Wan([("s0", source)], None, Metrics())
    span = (1000, 200_000)
    assert (
        await wan.read_range(
            Way.SEEDER, REPOSITORY, source.put(BODY), len(BODY), span, Reader(lambda _: None)
        )
        == BODY[1000:200_000]
    )
    assert source.asked["open_blob"] == 3


async def test_ranges_share_a_connection(nursery: trio.Nursery) -> None:
    registry = FaultRegistry()
    await nursery.start(registry.run)
    origin = OriginClient({REPOSITORY.registry: UpstreamSpec(REPOSITORY.registry, registry.url)})
    wan = Wan([], origin, Metrics())
    digest = registry.add_blob(BODY)
    for start in range(0, 400_000, 100_000):
        span = (start, start + 100_000)
        data = await wan.read_range(Way.ORIGIN, REPOSITORY, digest, len(BODY), span, Reader(lambda _: None))
        assert data == BODY[start : start + 100_000]
    await origin.aclose()
    assert registry.connections == 1, "each new one costs a TLS handshake and a slow start"


RECORD = 16 * 1024


class Encrypted(MemoryOrigin):
    """Bytes come at a rate; a read gives one record of TLS, however many have come."""

    async def _chunks(
        self, digest: Digest, data: bytes, start: int, stop: int
    ) -> AsyncGenerator[bytes, None]:
        began = trio.current_time()
        for position in range(start, stop, RECORD):
            record = data[position : min(position + RECORD, stop)]
            await trio.sleep_until(began + (position + len(record) - start) / self.bytes_s)
            yield record


@pytest.mark.parametrize("bytes_s", [0.1e6, 12.5e6, 125e6])
async def test_ranges_over_tls_come_as_fast_as_the_link(bytes_s: float, autojump_clock: MockClock) -> None:
    source = Encrypted(bytes_s)
    body = bytes(4 * MIB)
    wan = Wan([("s0", source)], None, Metrics())
    size, began = len(body), trio.current_time()
    assert (
        await wan.read_range(
            Way.SEEDER, REPOSITORY, source.put(body), size, (0, size), Reader(lambda _: None)
        )
        == body
    )
    assert trio.current_time() - began <= 1.05 * size / bytes_s + 0.05


Ask = Callable[[Wan], Awaitable[object]]


@pytest.mark.parametrize(
    "ask", [lambda wan: wan.tags(REPOSITORY, ""), lambda wan: wan.resolve(REPOSITORY, TAG)]
)
async def test_without_any_rung(ask: Ask, autojump_clock: MockClock) -> None:
    ladder = Ladder(seeders=0, direct=False)
    assert ladder.wan.way(REPOSITORY) is Way.NONE
    with pytest.raises(Unavailable):
        await ask(ladder.wan)
    assert trio.current_time() < 0.1


async def test_direct_switched_off_is_said(autojump_clock: MockClock) -> None:
    ladder = Ladder(direct=False)
    with pytest.raises(Unavailable, match="direct = false"):
        async with ladder.wan.origin_stream(REPOSITORY, ladder.digest, 0, None):
            pass


def beyond(error: OriginFault) -> OriginFault:
    """As a seeder tells it of its own upstream."""
    error.beyond_seeder = True
    return error


@pytest.mark.parametrize("fault", [Unavailable("dead upstream"), RateLimited("slow down", 20.0)])
async def test_a_dead_upstream_of_the_seeder_costs_that_upstream_alone(
    fault: OriginFault, autojump_clock: MockClock
) -> None:
    ladder = Ladder()
    ladder.seeders[0].fault = beyond(fault)
    await ladder.wan.blob_size(REPOSITORY, ladder.digest)
    assert ladder.wan.way(REPOSITORY) is Way.ORIGIN
    assert ladder.wan.way(OTHER) is Way.SEEDER
    assert (ladder.seeder_up(), ladder.upstream_up("s0")) == (1, 0)
    ladder.seeders[0].fault = None
    await ladder.wan.blob_size(OTHER, ladder.digest)
    assert ladder.upstream_up("s0") == 0, "one upstream says nothing of another"
    await trio.sleep(20)
    await ladder.wan.blob_size(REPOSITORY, ladder.digest)
    assert ladder.upstream_up("s0") == 1


async def test_a_dead_registry_is_left_alone_and_no_other(autojump_clock: MockClock) -> None:
    ladder = Ladder(seeders=0)
    ladder.origin.fault = Unavailable("cannot be connected to")
    with pytest.raises(Unavailable):
        await ladder.wan.blob_size(REPOSITORY, ladder.digest)
    assert ladder.wan.way(REPOSITORY) is Way.NONE
    assert ladder.wan.way(OTHER) is Way.ORIGIN


async def test_a_body_that_breaks_off_is_not_the_seeders_death(autojump_clock: MockClock) -> None:
    ladder = Ladder()
    ladder.seeders[0].fault_after = 1
    with pytest.raises(Unavailable):
        await ladder.wan.read_range(
            Way.SEEDER, REPOSITORY, ladder.digest, len(BODY), (0, len(BODY)), Reader(lambda _: None)
        )
    assert ladder.wan.way(REPOSITORY) is Way.ORIGIN
    assert ladder.wan.way(OTHER) is Way.SEEDER
    counted = ladder.metrics.registry.get_sample_value("p2pd_wan_bytes_total", {"source": "s0"})
    assert counted == 64 * 1024, "what came before crossed the WAN all the same"


async def test_a_blob_that_waits_while_others_come_takes_nobody_down(autojump_clock: MockClock) -> None:
    ladder = Ladder()
    seeder = ladder.seeders[0]
    waiting = seeder.put(BODY[::-1])
    seeder.line[waiting] = trio.Event()
    seeder.bytes_s = len(BODY) / (2 * LINE_PATIENCE)

    came_at: dict[Digest, float] = {}

    async def read(digest: Digest, other: Digest) -> None:
        def came(count: int) -> None:
            if count:
                came_at[digest] = trio.current_time()

        await ladder.wan.read_range(
            Way.SEEDER,
            REPOSITORY,
            digest,
            len(BODY),
            (0, len(BODY)),
            Reader(came, lambda: came_at.get(other, 0.0)),
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, ladder.digest, waiting)
        with pytest.raises(Unavailable):
            await read(waiting, ladder.digest)
        assert ladder.wan.way(REPOSITORY) is Way.SEEDER
    with pytest.raises(Unavailable):
        await read(waiting, ladder.digest)
    assert ladder.wan.way(REPOSITORY) is Way.ORIGIN, "nothing else came meanwhile"


async def test_the_seeder_answers_before_a_node_gives_it_up() -> None:
    assert ANSWER_WITHIN < SEEDER_DEADLINE
