"""Each way in which an upstream can misbehave, and the error it becomes."""

import gzip
import json
from collections.abc import AsyncIterator
from email.utils import formatdate
from time import time

import pytest
import trio
from trio.testing import MockClock

from benchmarks.testbed.registry import (
    Behaviour,
    Exchange,
    FaultRegistry,
    drip,
    ignore_range,
    reset,
    reset_body,
    short_body,
    silence,
    stalled_body,
    status,
)
from p2pd.io.http import Timeouts
from p2pd.io.origin import OriginClient
from p2pd.model.content import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from p2pd.model.errors import (
    Denied,
    NotFound,
    OriginFault,
    RateLimited,
    Unavailable,
    WrongContent,
)
from p2pd.model.layout import MANIFEST_LIMIT
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.model.upstream import UpstreamSpec

APP = Repository("reg.test", "app")
TAG = Tag("v1")
BODY = bytes(range(256)) * 2048
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()


@pytest.fixture
async def client(registry: FaultRegistry) -> AsyncIterator[OriginClient]:
    client = OriginClient({"reg.test": UpstreamSpec("reg.test", registry.url)})
    yield client
    await client.aclose()


@pytest.fixture
def patient_clock() -> MockClock:
    """Time jumps only when nothing has happened for long: the sockets here are real."""
    return MockClock(autojump_threshold=0.15)


async def read(client: OriginClient, digest: Digest, start: int = 0, stop: int | None = None) -> bytes:
    async with client.open_blob(APP, digest, start, stop) as stream:
        body = b"".join([chunk async for chunk in stream.chunks])
        assert len(body) == stream.stop - stream.start
        return body


async def test_blob_whole_and_in_ranges(registry: FaultRegistry, client: OriginClient) -> None:
    digest = registry.add_blob(BODY)
    assert await client.blob_size(APP, digest) == len(BODY)
    assert await read(client, digest) == BODY
    assert await read(client, digest, 5, 70_000) == BODY[5:70_000]
    async with client.open_blob(APP, digest, 100) as stream:
        assert (stream.size, stream.start, stream.stop) == (len(BODY), 100, len(BODY))
    whole, part, rest = (seen for seen in registry.requests if seen.method == "GET")
    assert "range" not in whole.headers
    assert part.headers["range"] == "bytes=5-69999"
    assert rest.headers["range"] == "bytes=100-"
    assert {seen.headers["accept-encoding"] for seen in registry.requests} == {"identity"}


async def test_an_empty_blob(registry: FaultRegistry, client: OriginClient) -> None:
    digest = registry.add_blob(b"")
    assert await client.blob_size(APP, digest) == 0
    assert await read(client, digest) == b""


async def test_a_reader_may_leave_half_way_and_the_client_stays_usable(
    registry: FaultRegistry, client: OriginClient
) -> None:
    digest = registry.add_blob(BODY)
    for _ in range(3):
        async with client.open_blob(APP, digest) as stream:
            async for chunk in stream.chunks:
                assert chunk
                break
    async with client.open_blob(APP, digest):
        pass
    assert await read(client, digest) == BODY


async def test_a_cancelled_reader_leaves_the_client_usable(
    registry: FaultRegistry, client: OriginClient
) -> None:
    digest = registry.add_blob(BODY)
    registry.fault("/blobs/", stalled_body(1000), times=1)
    with trio.CancelScope() as scope:
        async with client.open_blob(APP, digest) as stream:
            async for _ in stream.chunks:
                scope.cancel()
    assert scope.cancelled_caught
    assert await read(client, digest) == BODY


async def test_size_without_head(registry: FaultRegistry, client: OriginClient) -> None:
    digest = registry.add_blob(BODY)
    for code in (405, 403):
        registry.heal()
        registry.fault("HEAD", status(code))
        assert await client.blob_size(APP, digest) == len(BODY)


async def test_ignored_range_starts_at_zero(registry: FaultRegistry, client: OriginClient) -> None:
    digest = registry.add_blob(BODY)
    registry.fault("/blobs/", ignore_range)
    async with client.open_blob(APP, digest, 100, 200) as stream:
        assert (stream.size, stream.start, stream.stop) == (len(BODY), 0, len(BODY))
        assert b"".join([chunk async for chunk in stream.chunks]) == BODY


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (status(401), Denied),
        (status(403), Denied),
        (status(404), NotFound),
        (status(410), NotFound),
        (status(400), Denied),
        (status(429), RateLimited),
        (status(500), Unavailable),
        (status(502), Unavailable),
        (status(503, {"Retry-After": "1"}), Unavailable),
        (status(503, None, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}'), RateLimited),
        (status(416), WrongContent),
        (status(204), Unavailable),
        (status(206), Unavailable),
        (reset, Unavailable),
    ],
)
async def test_failures_before_the_body(
    behaviour: Behaviour, error: type[OriginFault], registry: FaultRegistry, client: OriginClient
) -> None:
    digest = registry.add_blob(BODY)
    registry.fault("GET", behaviour)
    for reading in (lambda: read(client, digest, 1), lambda: client.manifest(APP, TAG)):
        with pytest.raises(OriginFault) as caught:
            await reading()
        assert type(caught.value) is error
        assert "\n" not in str(caught.value)
    registry.heal()
    assert await read(client, digest, 1) == BODY[1:]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 0-9/100"},
        {"Content-Range": "bytes 10-12/100"},
        {"Content-Range": "bytes 10-29/100"},
        {"Content-Range": "bytes 10-19/*"},
        {"Content-Range": "nonsense"},
        {},
    ],
)
async def test_a_wrong_partial_answer_is_refused(
    headers: dict[str, str], registry: FaultRegistry, client: OriginClient
) -> None:
    digest = registry.add_blob(BODY)
    registry.fault("/blobs/", status(206, headers, b"0123456789"))
    with pytest.raises(Unavailable):
        await read(client, digest, 10, 20)


async def test_less_than_asked_for_is_taken(registry: FaultRegistry, client: OriginClient) -> None:
    digest = registry.add_blob(BODY)
    registry.fault("/blobs/", status(206, {"Content-Range": "bytes 10-19/100"}, b"0123456789"))
    assert await read(client, digest, 10, 50) == b"0123456789"


async def test_429_tells_how_long(registry: FaultRegistry, client: OriginClient) -> None:
    for header, low, high in (("7", 7, 7), (formatdate(time() + 60), 50, 60), ("999999", 3600, 3600)):
        registry.heal()
        registry.fault("/manifests/", status(429, {"Retry-After": header}))
        with pytest.raises(RateLimited) as caught:
            await client.resolve(APP, TAG)
        assert caught.value.retry_after is not None
        assert low <= caught.value.retry_after <= high


@pytest.mark.parametrize("behaviour", [short_body(70_000), reset_body(70_000), short_body(0)])
async def test_a_body_that_breaks_off(
    behaviour: Behaviour, registry: FaultRegistry, client: OriginClient
) -> None:
    digest = registry.add_blob(BODY)
    registry.fault("/blobs/", behaviour)
    received = bytearray()

    async def drain() -> None:
        async with client.open_blob(APP, digest) as stream:
            async for chunk in stream.chunks:
                received.extend(chunk)

    with pytest.raises(Unavailable):
        await drain()
    assert BODY.startswith(received)


async def test_a_longer_body_than_its_length_is_cut_at_it(
    registry: FaultRegistry, client: OriginClient
) -> None:
    digest = registry.add_blob(BODY)

    async def behave(exchange: Exchange) -> None:
        await exchange.head(200, {"Content-Length": "10"})
        await exchange.raw(BODY)

    registry.fault("/blobs/", behave)
    assert await read(client, digest) == BODY[:10]


async def test_a_length_is_needed(registry: FaultRegistry, client: OriginClient) -> None:
    digest = registry.add_blob(BODY)

    async def behave(exchange: Exchange) -> None:
        await exchange.head(200, {"Connection": "close"})

    registry.fault("/blobs/", behave)
    with pytest.raises(Unavailable, match="how large"):
        await read(client, digest)


async def test_a_compressed_answer_is_refused(registry: FaultRegistry, client: OriginClient) -> None:
    registry.fault("/manifests/", status(200, {"Content-Encoding": "gzip"}, gzip.compress(MANIFEST)))
    with pytest.raises(Unavailable, match="compressed"):
        await client.manifest(APP, TAG)


async def test_something_else_than_http(registry: FaultRegistry, client: OriginClient) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.raw(b"SSH-2.0-OpenSSH_9.2\r\n" * 3)

    registry.fault("/manifests/", behave)
    with pytest.raises(Unavailable, match="HTTP"):
        await client.manifest(APP, TAG)


async def test_a_request_that_meets_a_dying_connection_is_sent_again(
    registry: FaultRegistry, client: OriginClient
) -> None:
    registry.add_manifest(MANIFEST, TAG)
    registry.fault("/manifests/", reset, times=1)
    assert (await client.manifest(APP, TAG)).body == MANIFEST


async def test_a_body_that_stalls(
    registry: FaultRegistry, client: OriginClient, patient_clock: MockClock
) -> None:
    digest = registry.add_blob(BODY)
    registry.fault("/blobs/", stalled_body(1000))
    began = trio.current_time()
    with pytest.raises(Unavailable, match="stopped sending"):
        await read(client, digest)
    assert trio.current_time() - began == pytest.approx(15, abs=1)


async def test_headers_that_never_come(
    registry: FaultRegistry, client: OriginClient, patient_clock: MockClock
) -> None:
    registry.fault("/manifests/", silence)
    began = trio.current_time()
    with pytest.raises(Unavailable, match="within 10 s"):
        await client.manifest(APP, TAG)
    assert trio.current_time() - began == pytest.approx(10, abs=1)


async def test_a_slow_body_is_no_stall(registry: FaultRegistry, patient_clock: MockClock) -> None:
    digest = registry.add_blob(b"0123456789")
    registry.fault("/blobs/", drip(5, pause=14))
    client = OriginClient({"reg.test": UpstreamSpec("reg.test", registry.url)}, timeouts=Timeouts(stall=15))
    try:
        assert await read(client, digest) == b"0123456789"
    finally:
        await client.aclose()


async def test_nobody_listens(client: OriginClient) -> None:
    gone = OriginClient({"reg.test": UpstreamSpec("reg.test", "http://127.0.0.1:9")})
    try:
        with pytest.raises(Unavailable, match=r"connected to: Connection refused$"):
            await gone.manifest(APP, TAG)
    finally:
        await gone.aclose()


async def test_manifest_by_tag_and_digest(registry: FaultRegistry, client: OriginClient) -> None:
    digest = registry.add_manifest(MANIFEST, TAG)
    for reference in (TAG, digest):
        manifest = await client.manifest(APP, reference)
        assert manifest.body == MANIFEST
        assert manifest.descriptor == Descriptor(digest, len(MANIFEST), OCI_MANIFEST)
    accepted = registry.requests[0].headers["accept"]
    assert all(kind in accepted for kind in (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST))


async def test_a_wrong_manifest_is_refused(registry: FaultRegistry, client: OriginClient) -> None:
    digest = registry.add_manifest(MANIFEST)
    registry.manifests[str(digest)] = (OCI_MANIFEST, MANIFEST + b" ")
    with pytest.raises(WrongContent):
        await client.manifest(APP, digest)


async def test_a_huge_manifest_is_refused_while_it_comes(
    registry: FaultRegistry, client: OriginClient
) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.head(200, {"Connection": "close"})
        while True:
            await exchange.raw(b" " * 65536)

    registry.fault("/manifests/", endless)
    with pytest.raises(WrongContent, match=str(MANIFEST_LIMIT)):
        await client.manifest(APP, TAG)


async def test_resolve_asks_by_head(registry: FaultRegistry, client: OriginClient) -> None:
    digest = registry.add_manifest(MANIFEST, TAG)
    assert await client.resolve(APP, TAG) == Descriptor(digest, len(MANIFEST), OCI_MANIFEST)
    assert [seen.method for seen in registry.requests] == ["HEAD"]


@pytest.mark.parametrize(
    "behaviour",
    [
        status(405),
        status(404),
        status(200, {"Content-Type": OCI_MANIFEST}),
        status(200, {"Docker-Content-Digest": "sha512:" + "0" * 128}),
    ],
)
async def test_resolve_gets_where_head_does_not_help(
    behaviour: Behaviour, registry: FaultRegistry, client: OriginClient
) -> None:
    digest = registry.add_manifest(MANIFEST, TAG)
    registry.fault("HEAD", behaviour)
    assert (await client.resolve(APP, TAG)).digest == digest


async def test_resolve_of_what_is_not_there(registry: FaultRegistry, client: OriginClient) -> None:
    with pytest.raises(NotFound):
        await client.resolve(APP, TAG)


async def test_tags_are_passed_on_as_they_are(registry: FaultRegistry, client: OriginClient) -> None:
    registry.documents["/v2/app/tags/list"] = b'{"name": "app",  "tags": ["a", "b"]}'
    assert await client.tags(APP, "n=2&last=0") == b'{"name": "app",  "tags": ["a", "b"]}'
    assert registry.requests[0].query == {"n": "2", "last": "0"}


TAGS = [f"v{number:02}" for number in range(25)]
PAGE = 10


async def answer_page(exchange: Exchange, tags: list[str], following: str | None) -> None:
    headers = {"Content-Type": "application/json"}
    if following is not None:
        headers["Link"] = f'</v2/app/tags/list?{following}>; rel="next"'
    await exchange.answer(200, headers, json.dumps({"name": "app", "tags": tags}).encode())


async def by_name(exchange: Exchange) -> None:
    query = exchange.seen.query
    limit = min(int(query.get("n", PAGE)), PAGE)
    rest = [tag for tag in TAGS if tag > query.get("last", "")]
    following = f"n={limit}&last={rest[limit - 1]}" if len(rest) > limit else None
    await answer_page(exchange, rest[:limit], following)


async def by_token(exchange: Exchange) -> None:
    begin = int(exchange.seen.query.get("token", 0))
    following = f"token={begin + PAGE}" if begin + PAGE < len(TAGS) else None
    await answer_page(exchange, TAGS[begin : begin + PAGE], following)


@pytest.mark.parametrize(
    ("pages", "query", "expected"),
    [
        (by_name, "", TAGS),
        (by_name, "n=7", TAGS[:7]),
        (by_name, "n=15", TAGS[:15]),
        (by_name, "n=15&last=v04", TAGS[5:20]),
        (by_name, "n=15&last=v20", TAGS[21:]),
        (by_token, "", TAGS),
        (by_token, "n=5", TAGS),  # nobody could ask for the rest
        (by_token, "n=10&last=v23", TAGS[24:]),
        (by_token, "n=10&last=v24", []),
    ],
)
async def test_pages_of_tags_are_put_together(
    pages: Behaviour, query: str, expected: list[str], registry: FaultRegistry, client: OriginClient
) -> None:
    registry.fault("GET /v2/app/tags/list", pages)
    assert json.loads(await client.tags(APP, query)) == {"name": "app", "tags": expected}


async def test_pages_that_lead_to_themselves(registry: FaultRegistry, client: OriginClient) -> None:
    registry.fault("GET /v2/app/tags/list", lambda exchange: answer_page(exchange, ["a"], "token=1"))
    assert json.loads(await client.tags(APP, ""))["tags"] == ["a", "a"]


async def test_pages_without_end(registry: FaultRegistry, client: OriginClient) -> None:
    async def on_and_on(exchange: Exchange) -> None:
        await answer_page(exchange, ["a"], f"token={int(exchange.seen.query.get('token', 0)) + 1}")

    registry.fault("GET /v2/app/tags/list", on_and_on)
    with pytest.raises(WrongContent, match="too many tags"):
        await client.tags(APP, "")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"tags": "a"}', b'{"tags": [1]}', b"[" * 100_000])
async def test_tags_that_are_none(body: bytes, registry: FaultRegistry, client: OriginClient) -> None:
    registry.documents["/v2/app/tags/list"] = body
    with pytest.raises(WrongContent):
        await client.tags(APP, "")


async def test_referrers_by_api_by_tag_and_none(registry: FaultRegistry, client: OriginClient) -> None:
    subject = Digest("a" * 64)
    empty = json.loads(await client.referrers(APP, subject))
    assert empty["manifests"] == []
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    registry.add_manifest(index, Tag(f"sha256-{subject.hex}"), media_type=OCI_INDEX)
    assert await client.referrers(APP, subject) == index
    registry.documents[f"/v2/app/referrers/{subject}"] = b'{"manifests": [{}]}'
    assert await client.referrers(APP, subject) == b'{"manifests": [{}]}'
    registry.documents[f"/v2/app/referrers/{subject}"] = b"[]"
    with pytest.raises(WrongContent):
        await client.referrers(APP, subject)
