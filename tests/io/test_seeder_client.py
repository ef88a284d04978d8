"""What a seeder's answers about a segment become."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from benchmarks.testbed.registry import FaultRegistry, status
from p2pd.io.seeder_client import SeederClient
from p2pd.model.content import Holding
from p2pd.model.errors import Unavailable, WrongContent
from p2pd.model.reference import Repository
from p2pd.ports.origin import SegmentAnswer
from p2pd.wire.response import HOLDING_HEADER
from tests.support.memory_store import meta_of

APP = Repository("reg.test", "app")
BODY = bytes(3_000_000)


@pytest.fixture
async def client(registry: FaultRegistry) -> AsyncIterator[SeederClient]:
    client = SeederClient(registry.url)
    yield client
    await client.aclose()


@pytest.mark.parametrize(
    ("told", "holding"),
    [("whole", Holding.WHOLE), ("pulling", Holding.PULLING), ("half", None), (None, None)],
)
async def test_hashes_and_how_much_it_has(
    told: str | None, holding: Holding | None, registry: FaultRegistry, client: SeederClient
) -> None:
    digest = registry.add_blob(BODY)
    meta = meta_of(digest, BODY, len(BODY), 0)
    assert meta is not None
    headers = {} if told is None else {HOLDING_HEADER: told}
    registry.fault("/p2pd/v1/segments/", lambda exchange: exchange.answer(200, headers, meta.piece_hashes))
    assert await client.segment(APP, digest, len(BODY), 0) == SegmentAnswer(meta, holding)


@pytest.mark.parametrize(("is_patient", "wait"), [(True, "20"), (False, "0")])
async def test_no_hashes_yet(
    is_patient: bool, wait: str, registry: FaultRegistry, client: SeederClient
) -> None:
    registry.fault("/p2pd/v1/segments/", status(202))
    digest = registry.add_blob(BODY)
    answer = await client.segment(APP, digest, len(BODY), 0, is_patient=is_patient)
    assert answer == SegmentAnswer(None, Holding.PULLING), "though a proxy may have dropped the header"
    assert registry.requests[-1].query["wait"] == wait


@pytest.mark.parametrize(("code", "error"), [(503, Unavailable), (204, Unavailable)])
async def test_no_answer(
    code: int, error: type[Exception], registry: FaultRegistry, client: SeederClient
) -> None:
    registry.fault("/p2pd/v1/segments/", status(code))
    with pytest.raises(error):
        await client.segment(APP, registry.add_blob(BODY), len(BODY), 0)


async def test_hashes_in_a_wrong_number(registry: FaultRegistry, client: SeederClient) -> None:
    registry.fault("/p2pd/v1/segments/", lambda exchange: exchange.answer(200, {}, bytes(20)))
    with pytest.raises(WrongContent, match="wrong number"):
        await client.segment(APP, registry.add_blob(BODY), len(BODY), 0)


@pytest.mark.parametrize(
    ("told", "holding"),
    [("whole", Holding.WHOLE), ("pulling", Holding.PULLING), ("half", None), (None, None)],
)
async def test_a_range_and_how_much_it_has(
    told: str | None, holding: Holding | None, registry: FaultRegistry, client: SeederClient
) -> None:
    digest = registry.add_blob(BODY)
    headers = {"Content-Range": f"bytes 5-9/{len(BODY)}"} | ({} if told is None else {HOLDING_HEADER: told})
    registry.fault("GET /v2/app/blobs/", lambda exchange: exchange.answer(206, headers, BODY[5:10]))
    async with client.open_blob(APP, digest, 5, 10) as stream:
        assert stream.holding is holding
