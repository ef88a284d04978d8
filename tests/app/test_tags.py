"""Tags: one node asks upstream for the site; memory answers only when nobody could be asked."""

from __future__ import annotations

import time

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from p2pd.app.fallback import CONFIRM_HURRIED, TOLD_FOR
from p2pd.app.tags import FRESH_FOR, OWNER_DEADLINE
from p2pd.decide.ownership import object_key, ranked
from p2pd.model.content import OCI_MANIFEST, Descriptor
from p2pd.model.errors import Denied, NotFound, P2pdError, RateLimited, StoreError, Unavailable
from p2pd.model.messages import Resolve, Resolved
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.store import TagRecord
from tests.support.memory_site import REPOSITORY, MemoryNode, MemorySite, node_id

TAG = Tag("v1")
OLD, NEW = b'{"schemaVersion":2,"layers":[]}', b'{"schemaVersion":2,"layers":[],"x":1}'


def point(site: MemorySite, body: bytes) -> Digest:
    for source in (site.seeder, site.origin):
        source.tag_of["v1"] = source.put(body)
    return site.seeder.tag_of["v1"]


async def resolve(node: MemoryNode) -> tuple[Digest, bool]:
    descriptor, stale = await node.tags.resolve(REPOSITORY, TAG)
    return descriptor.digest, stale


async def test_a_burst_is_one_question_and_the_next_second_another(
    autojump_clock: MockClock, site: MemorySite
) -> None:
    nodes = [site.join(number, seeder=False) for number in range(1, 7)]
    await site.met()
    old = point(site, OLD)
    async with trio.open_nursery() as nursery:
        for node in nodes * 3:
            nursery.start_soon(node.tags.resolve, REPOSITORY, TAG)
    assert site.origin.asked["resolve"] == 1
    assert [await resolve(node) for node in nodes] == [(old, False)] * 6
    assert all((REPOSITORY, TAG) in node.store.tags for node in nodes), "all that saw it remember"
    new = point(site, NEW)
    await trio.sleep(FRESH_FOR + 0.1)
    assert [await resolve(node) for node in nodes] == [(new, False)] * 6
    assert site.origin.asked["resolve"] == 2


async def test_each_node_asks_a_seeder_itself_and_believes_no_peer(
    autojump_clock: MockClock, site: MemorySite
) -> None:
    nodes = [site.join(number) for number in range(1, 5)]
    await site.met()
    old = point(site, OLD)
    for node in nodes:
        await node.store.put_tag(
            REPOSITORY, TAG, TagRecord(Descriptor(Digest("0" * 64), 1, OCI_MANIFEST), time.time())
        )
    assert [await resolve(node) for node in nodes] == [(old, False)] * 4
    assert site.seeder.asked["resolve"] == 4


@pytest.mark.parametrize("error", [Unavailable("cut"), RateLimited("slow", 3.0)])
async def test_memory_answers_when_nobody_can_be_asked(
    autojump_clock: MockClock, site: MemorySite, error: P2pdError
) -> None:
    node = site.join(1)
    old = point(site, OLD)
    assert await resolve(node) == (old, False)
    site.cut(error)
    await trio.sleep(FRESH_FOR + 0.1)
    assert await resolve(node) == (old, True)
    assert node.counted("stale_tags") == 1
    with capture_logs() as logs:
        assert await resolve(node) == (old, True)
        await trio.sleep(TOLD_FOR)
        assert await resolve(node) == (old, True)
    told = [line["log_level"] for line in logs if line["event"] == "tag.stale"]
    assert told == ["debug", "warning"], "one pull asks for a tag several times"
    site.cut(None)
    await trio.sleep(31)
    assert await resolve(node) == (old, False)


@pytest.mark.parametrize("error", [NotFound("deleted"), Denied("no more")])
async def test_a_refusal_is_not_masked_by_memory(
    autojump_clock: MockClock, site: MemorySite, error: P2pdError
) -> None:
    nodes = [site.join(number) for number in range(1, 4)]
    await site.met()
    point(site, OLD)
    for node in nodes:
        await resolve(node)
    site.cut(error)
    await trio.sleep(FRESH_FOR + 0.1)
    for node in nodes:
        with pytest.raises(type(error)):
            await resolve(node)
        assert node.counted("stale_tags") == 0


async def test_who_never_saw_it_asks_the_peers_and_takes_the_newest(
    autojump_clock: MockClock, site: MemorySite
) -> None:
    nodes = [site.join(number) for number in range(1, 5)]
    await site.met()
    now = time.time()
    for node, age, fill in ((nodes[0], 500, "a"), (nodes[1], 20, "b"), (nodes[2], 90, "c")):
        descriptor = Descriptor(Digest(fill * 64), 10, OCI_MANIFEST)
        await node.store.put_tag(REPOSITORY, TAG, TagRecord(descriptor, now - age))
    site.cut(Unavailable("cut"))
    assert await resolve(nodes[3]) == (Digest("b" * 64), True)
    assert await resolve(nodes[0]) == (Digest("b" * 64), True), "also when it remembers an older one"


async def test_an_answer_from_the_future_masks_no_other(autojump_clock: MockClock, site: MemorySite) -> None:
    """It was kept while the clock was wrong."""
    nodes = [site.join(number) for number in range(1, 4)]
    await site.met()
    now = time.time()
    for node, age, fill in ((nodes[0], -1e8, "a"), (nodes[1], 20, "b")):
        descriptor = Descriptor(Digest(fill * 64), 10, OCI_MANIFEST)
        await node.store.put_tag(REPOSITORY, TAG, TagRecord(descriptor, now - age))
    site.cut(Unavailable("cut"))
    assert [await resolve(node) for node in nodes] == [(Digest("b" * 64), True)] * 3
    site.lan.leave(nodes[1].node_id)
    await trio.sleep(60)
    assert await resolve(nodes[0]) == (Digest("a" * 64), True), "better than none"


async def test_what_nobody_remembers_is_the_wan_s_error(autojump_clock: MockClock, site: MemorySite) -> None:
    node = site.join(1)
    site.join(2)
    await site.met()
    site.cut(RateLimited("slow", 3.0))
    with pytest.raises(RateLimited):
        await resolve(node)


async def test_a_dead_owner_costs_its_deadline(autojump_clock: MockClock, site: MemorySite) -> None:
    nodes = {node_id(number): site.join(number, seeder=False) for number in range(1, 4)}
    await site.met()
    old = point(site, OLD)
    first, second, _ = ranked(object_key(f"tag {REPOSITORY}:{TAG}"), list(nodes))
    site.lan.stall(first)
    assert await resolve(nodes[second]) == (old, False)
    assert trio.current_time() <= OWNER_DEADLINE + 0.5


async def test_a_wan_that_swallows_everything_still_leaves_time_for_memory(
    autojump_clock: MockClock, site: MemorySite
) -> None:
    async def never(_repository: Repository, _tag: Tag) -> Descriptor:
        await trio.sleep_forever()
        raise AssertionError

    node = site.join(1)
    old = point(site, OLD)
    await resolve(node)
    await trio.sleep(FRESH_FOR + 0.1)
    site.seeder.resolve = site.origin.resolve = never  # type: ignore[method-assign, assignment] # no answer, no error
    began = trio.current_time()
    assert await resolve(node) == (old, True)
    assert trio.current_time() - began < 8.0, "the front end gives up after nine seconds"


async def test_a_slow_wan_is_heard_again_however_often_it_is_asked(
    autojump_clock: MockClock, site: MemorySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = site.join(1, seeder=False)
    old = point(site, OLD)
    await resolve(node)
    new = point(site, NEW)
    answer, takes = site.origin.resolve, 30.0

    async def slowly(repository: Repository, tag: Tag) -> Descriptor:
        await trio.sleep(takes)
        return await answer(repository, tag)

    monkeypatch.setattr(site.origin, "resolve", slowly)
    await trio.sleep(FRESH_FOR + 0.1)
    assert await resolve(node) == (old, True)
    waits: list[float] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            began = trio.current_time()
            assert await resolve(node) == (old, True)
            waits.append(trio.current_time() - began)

        for _ in range(60):
            nursery.start_soon(ask)
            await trio.sleep(0.5)
    assert sum(wait > CONFIRM_HURRIED + 1 for wait in waits) <= 3, "one at a time tries"
    takes = CONFIRM_HURRIED + 1.5
    began = trio.current_time()
    while await resolve(node) == (old, True):
        assert trio.current_time() - began < 20
        await trio.sleep(0.1)
    assert await resolve(node) == (new, False)


async def test_a_disk_that_does_not_remember_hinders_no_answer(
    autojump_clock: MockClock, site: MemorySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise StoreError("read-only")

    node = site.join(1)
    old = point(site, OLD)
    monkeypatch.setattr(node.store, "put_tag", broken)
    assert await resolve(node) == (old, False)


async def test_what_peers_are_told(autojump_clock: MockClock, site: MemorySite) -> None:
    node = site.join(1)
    old = point(site, OLD)
    memory = Resolve(REPOSITORY, TAG, upstream=False)
    assert await node.tags.answer_peer(memory) == Resolved(None)
    assert site.seeder.asked.total() == 0, "memory never asks the WAN"
    told = await node.tags.answer_peer(Resolve(REPOSITORY, TAG, upstream=True))
    assert told.descriptor is not None
    assert told.descriptor.digest == old
    # The wall clock of this node may have been set back since.
    for ahead, is_known in ((10, True), (1000, False)):
        record = TagRecord(told.descriptor, time.time() + ahead)
        await node.store.put_tag(REPOSITORY, TAG, record)
        age = (await node.tags.answer_peer(memory)).age
        assert age == 0.0 if is_known else age > 1e9
