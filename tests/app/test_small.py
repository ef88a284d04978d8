"""Small objects: whoever holds one gives it, one node fetches it for all, liars cost a step only."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from p2pd.app.small import LAN_PATIENCE, OWNER_DEADLINE, READ_DEADLINE
from p2pd.decide.ownership import object_key, ranked
from p2pd.model.errors import NotFound, Unavailable
from p2pd.model.layout import MANIFEST_LIMIT
from p2pd.model.messages import Fetch, Fetched, Query, QueryReply, Read, ReadReply, Reply, Request
from p2pd.model.reference import Digest
from p2pd.ports.origin import BlobStream
from tests.support.memory_origin import digest_of
from tests.support.memory_site import REPOSITORY, MemoryNode, node_id, open_site
from tests.support.peer_handlers import ScriptedHandler

BODY = b"config " * 60_000


async def obtain(node: MemoryNode, digest: Digest) -> bytes:
    return await node.small.obtain(REPOSITORY, digest, is_manifest=False)


def by_rank(digest: Digest, count: int) -> list[int]:
    """Numbers of the nodes 1 … count, the object's owner first."""
    numbers = {node_id(number): number for number in range(1, count + 1)}
    return [numbers[node] for node in ranked(object_key(str(digest)), list(numbers))]


async def obtain_everywhere(nodes: list[MemoryNode], digest: Digest) -> None:
    async def one(node: MemoryNode) -> None:
        assert await obtain(node, digest) == BODY
        assert node.store.blobs[digest] == BODY

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(one, node)


async def test_a_site_fetches_it_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        nodes = [site.join(number) for number in range(1, 9)]
        await site.met()
        digest = site.seeder.put(BODY)
        await obtain_everywhere(nodes, digest)
        assert site.seeder.given[digest] == len(BODY)
        assert site.seeder.asked["open_blob"] == 1
        assert sum(node.counted("lan_bytes") for node in nodes) == 7 * len(BODY)
        assert sum(node.counted("wan_bytes", source="seeder") for node in nodes) == len(BODY)


async def test_a_thousand_at_once_cross_once_and_none_starves(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        nodes = [site.join(number) for number in range(1, 3)]
        await site.met()
        site.seeder.bytes_s = 1 << 20
        bodies = [b"%d" % number * 1000 for number in range(1000)]
        digests = [site.seeder.put(body) for body in bodies]
        slowest = sum(map(len, bodies)) / site.seeder.bytes_s

        async def one(digest: Digest, body: bytes) -> None:
            assert await obtain(nodes[0], digest) == body

        with trio.fail_after(1.5 * slowest + 1):
            async with trio.open_nursery() as nursery:
                for digest, body in zip(digests, bodies, strict=True):
                    nursery.start_soon(one, digest, body)
        assert [site.seeder.given[digest] for digest in digests] == list(map(len, bodies))


async def test_who_holds_it_gives_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        nodes = [site.join(number) for number in range(1, 4)]
        await site.met()
        digest = site.seeder.put(BODY)
        site.cut(Unavailable("the WAN is cut"))
        nodes[1].store.blobs[digest] = BODY
        await obtain_everywhere(nodes, digest)
        assert site.seeder.asked.total() == site.origin.asked.total() == 0


async def test_a_dead_owner_costs_its_deadline(tmp_path: Path, autojump_clock: MockClock) -> None:
    digest = Digest("0" * 64)
    async with open_site(tmp_path) as site:
        nodes = {number: site.join(number) for number in range(1, 5)}
        await site.met()
        digest = site.seeder.put(BODY)
        owner, second, *others = by_rank(digest, 4)
        site.lan.stall(node_id(owner))
        began = trio.current_time()
        await obtain_everywhere([nodes[number] for number in others], digest)
        assert trio.current_time() - began <= OWNER_DEADLINE + 1.0
        assert site.seeder.asked["open_blob"] == 1, "the next in rank fetched it for all"
        assert nodes[second].store.size_of(digest) == len(BODY)


async def test_nobody_is_asked_that_is_not_there(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        digest = site.seeder.put(BODY)
        assert await obtain(node, digest) == BODY
        assert trio.current_time() < 0.1


LIES: dict[str, Callable[[Read], Reply]] = {
    "wrong bytes": lambda read: ReadReply(b"x" * read.length),
    "short": lambda read: ReadReply(b"x"),
    "another reply": lambda read: Fetched(3),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("size", [len(BODY), len(BODY) + 1, 1, MANIFEST_LIMIT + 1, 2**40])
async def test_a_liar_costs_a_step(tmp_path: Path, autojump_clock: MockClock, lie: str, size: int) -> None:
    async def answer(request: Request) -> Reply:
        match request:
            case Query():
                return QueryReply(size, None)
            case Fetch():
                return Fetched(size)
            case Read():
                return LIES[lie](request)
        raise NotFound("nothing else")

    async with open_site(tmp_path) as site:
        node = site.join(1)
        for number in (2, 3):
            site.lan.join(node_id(number), ScriptedHandler(answer))
        await site.met()
        digest = site.seeder.put(BODY)
        assert await obtain(node, digest) == BODY
        assert node.store.blobs == {digest: BODY}
        assert site.seeder.asked["open_blob"] == 1
        assert node.counted("lan_bytes") == 0


async def says_it_holds_and_hangs(request: Request) -> Reply:
    """A peer whose disk hangs: what it holds it knows from memory."""
    if isinstance(request, Query):
        return QueryReply(len(BODY), None)
    await trio.sleep_forever()
    raise AssertionError


async def test_holders_that_never_answer_do_not_hold_it_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        site.lan.join(node_id(2), ScriptedHandler(says_it_holds_and_hangs))
        await site.met()
        digest = site.seeder.put(BODY)
        began = trio.current_time()
        with capture_logs() as logs:
            assert await obtain(node, digest) == BODY
        assert trio.current_time() - began <= READ_DEADLINE + OWNER_DEADLINE + 1.0
        told = [(line["log_level"], bool(line["reason"])) for line in logs if "peer_failed" in line["event"]]
        assert told == [("info", True)], "it says why, and warns nobody of a peer that went"


async def test_sick_holders_leave_time_for_the_wan_and_are_passed_over(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        for number in range(2, 8):
            site.lan.join(node_id(number), ScriptedHandler(says_it_holds_and_hangs))
        await site.met()
        waits: list[float] = []
        for number in range(8):
            body = BODY[: -1 - number]
            digest = site.seeder.put(body)
            began = trio.current_time()
            assert await obtain(node, digest) == body
            waits.append(trio.current_time() - began)
        assert max(waits) < LAN_PATIENCE + 1.0
        assert waits[-1] < 1.0
        site.cut(Unavailable("the WAN is cut"))
        with suppress(Unavailable):
            await obtain(node, digest_of(b"x"))  # that it is cut is found out
        holder = site.join(9)
        await site.met()
        holder.store.blobs[digest_of(BODY)] = BODY
        began = trio.current_time()
        assert await obtain(node, digest_of(BODY)) == BODY
        assert trio.current_time() - began < 1.0, "those that answered last"


async def test_two_that_take_each_other_for_the_owner_do_not_wait_for_ever(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        nodes = [site.join(1), site.join(2)]
        await site.met()
        digest = site.seeder.put(BODY)
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(obtain, node, digest)
            for node in nodes:
                nursery.start_soon(node.service.answer, node.peers.peer, Fetch(REPOSITORY, digest, False))
        assert trio.current_time() < 1.0
        assert [node.store.blobs.get(digest) for node in nodes] == [BODY, BODY]


async def test_rot_is_fetched_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        digest = site.seeder.put(BODY)
        node.store.blobs[digest] = BODY[:-1] + b"!"
        assert await obtain(node, digest) == BODY


async def test_what_is_nowhere_is_not_found_by_all(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        nodes = [site.join(number) for number in range(1, 4)]
        await site.met()
        for node in nodes:
            with pytest.raises(NotFound):
                await obtain(node, Digest("0" * 64))
            assert node.store.blobs == {}


async def test_a_client_that_leaves_takes_nothing_down(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        site.seeder.bytes_s = 100_000
        digest = site.seeder.put(BODY)

        async def leave() -> None:
            with trio.move_on_after(1):
                await obtain(node, digest)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            await trio.sleep(0.5)
            assert await obtain(node, digest) == BODY


async def test_what_is_no_blob_may_be_a_manifest_all_the_same(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        body = b'{"schemaVersion":2,"layers":[]}'
        digest = site.origin.put(body)

        @asynccontextmanager
        async def no_blob(*_: object) -> AsyncGenerator[BlobStream, None]:
            await trio.sleep(1)
            raise NotFound("it is a manifest")
            yield

        monkeypatch.setattr(site.origin, "open_blob", no_blob)
        bodies: list[bytes] = []

        async def as_manifest() -> None:
            await trio.sleep(0.5)
            bodies.append(await node.small.obtain(REPOSITORY, digest, is_manifest=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(as_manifest)
            with pytest.raises(NotFound):
                await node.small.obtain(REPOSITORY, digest, is_manifest=False)
        assert bodies == [body]
