"""What a seeder says of how much of a blob it has: with piece hashes, instead of them, and with bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pd.io.registry_app import build_app
from p2pd.io.seeder_client import SEGMENT_WAIT
from p2pd.model.errors import Denied
from p2pd.model.layout import MIB
from p2pd.wire.registry_api import Upstreams
from p2pd.wire.response import HOLDING_HEADER
from seeder.metrics import SeederMetrics
from seeder.segments import segment_route
from seeder.service import ANSWER_WITHIN
from tests.seeder.test_content import BODY, DIGEST, Bench
from tests.support.memory_store import meta_of
from tests.support.scripted_origin import Step

BLOB = f"/v2/app/blobs/{DIGEST}"
HASHES = f"/p2pd/v1/segments/app/{DIGEST}/0?ns=reg.test&size={len(BODY)}"


@pytest.fixture
async def bench(nursery: trio.Nursery, tmp_path: Path) -> Bench:
    """Its origin gives a MiB a second: four of them."""
    bench = Bench(nursery, tmp_path)
    bench.origin.steps = [Step(chunk=MIB, pause=1.0)]
    return bench


@pytest.fixture
async def client(bench: Bench) -> AsyncIterator[httpx.AsyncClient]:
    upstreams = Upstreams({"reg.test": "reg.test"}, default="reg.test")
    app = build_app(
        bench.content,
        upstreams=upstreams,
        extra_routes=[segment_route(bench.content, upstreams, SeederMetrics())],
        deadline=ANSWER_WITHIN,
        holding=bench.content.holding,
    )
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://seeder.test", timeout=None) as client:
        yield client


def told(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.headers.get(HOLDING_HEADER)


async def test_who_is_in_a_hurry_learns_at_once_that_the_blob_is_being_pulled(
    client: httpx.AsyncClient, bench: Bench, autojump_clock: MockClock
) -> None:
    bench.origin.gate = partial(trio.sleep, 10)  # before its first answer, too
    assert told(await client.get(f"{HASHES}&wait=0")) == (202, "pulling")
    assert trio.current_time() < 0.1
    await wait_all_tasks_blocked()
    assert bench.origin.calls == ["blob_size"], "the question began the transfer"
    answer = await client.get(f"{HASHES}&wait={SEGMENT_WAIT:.0f}")
    assert answer.status_code == 202, "two answers of the origin take as long"
    answer = await client.get(f"{HASHES}&wait={SEGMENT_WAIT:.0f}")
    meta = meta_of(DIGEST, BODY, len(BODY), 0)
    assert meta is not None
    assert (answer.status_code, answer.content) == (200, meta.piece_hashes)


async def test_nobody_waits_longer_than_the_seeder_holds_questions_back(
    client: httpx.AsyncClient, bench: Bench, autojump_clock: MockClock
) -> None:
    bench.origin.gate = trio.sleep_forever
    for wait, status in (
        ("", 503),
        ("&wait=soon", 503),
        ("&wait=-1", 503),
        ("&wait=999", 202),
        ("&wait=5", 202),
    ):
        began = trio.current_time()
        assert (await client.get(HASHES + wait)).status_code == status
        assert trio.current_time() - began == pytest.approx(5 if wait == "&wait=5" else SEGMENT_WAIT, abs=0.1)


async def test_hashes_come_to_who_is_in_a_hurry_where_they_are_there(
    client: httpx.AsyncClient, autojump_clock: MockClock
) -> None:
    await client.get(BLOB)
    assert told(await client.get(f"{HASHES}&wait=0")) == (200, "whole")


async def test_who_is_in_a_hurry_is_told_what_is_wrong(
    client: httpx.AsyncClient, bench: Bench, autojump_clock: MockClock
) -> None:
    bench.origin.error = Denied("not for you")
    assert told(await client.get(HASHES)) == (403, None)
    assert told(await client.get(f"{HASHES}&wait=0")) == (403, None)
    far = HASHES.replace("/0?", "/9?")
    assert told(await client.get(f"{far}&wait=0")) == (400, None)


async def test_every_answer_about_a_blob_says_how_much_is_here(
    client: httpx.AsyncClient, bench: Bench, autojump_clock: MockClock
) -> None:
    assert told(await client.head(BLOB)) == (200, "pulling")
    assert told(await client.get(BLOB, headers={"Range": "bytes=0-9"})) == (206, "pulling")
    last = await client.get(BLOB, headers={"Range": "bytes=-9"})
    assert told(last) == (206, "whole"), "as it is when the headers go"
    for method in ("GET", "HEAD"):
        assert told(await client.request(method, BLOB)) == (200, "whole")


async def test_nothing_is_said_of_a_blob_that_is_passed_through(
    client: httpx.AsyncClient, bench: Bench, autojump_clock: MockClock
) -> None:
    """Its origin gives any range at once: it is not waited for in order, as one that is pulled."""
    bench.store.capacity = 0
    for _ in ("as the disk proves full", "known to be full"):
        assert told(await client.get(BLOB, headers={"Range": "bytes=0-9"})) == (206, None)
