"""Tokens and logins, against a registry that wants them."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from benchmarks.testbed.registry import Exchange, FaultRegistry, honest, status
from p2pd.io.credentials import DockerConfig
from p2pd.io.origin import OriginClient
from p2pd.model.errors import Denied, OriginFault, RateLimited, Unavailable
from p2pd.model.reference import Repository, Tag
from p2pd.model.upstream import UpstreamSpec

APP = Repository("reg.test", "app")
TAG = Tag("v1")
LOGIN = {"auths": {"reg.test": {"auth": base64.b64encode(b"ann:se:cret").decode()}}}


def put(path: Path, document: object) -> None:
    path.write_text(json.dumps(document))


@pytest.fixture
async def registry(nursery: trio.Nursery) -> FaultRegistry:
    registry = FaultRegistry(auth="bearer")
    registry.add_manifest(b'{"schemaVersion": 2, "layers": []}', TAG)
    await nursery.start(registry.run)
    return registry


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


@pytest.fixture
async def client(registry: FaultRegistry, config: Path) -> AsyncIterator[OriginClient]:
    client = OriginClient({"reg.test": UpstreamSpec("reg.test", registry.url)}, DockerConfig(config))
    yield client
    await client.aclose()


async def test_an_anonymous_token_is_fetched_once_and_used_again(
    registry: FaultRegistry, client: OriginClient
) -> None:
    for _ in range(3):
        await client.manifest(APP, TAG)
    assert registry.tokens_given == 1
    assert registry.count("/manifests/") == 4
    token_request = next(seen for seen in registry.requests if seen.path == "/token")
    assert token_request.query == {"service": "registry.test", "scope": "repository:app:pull"}
    assert "authorization" not in token_request.headers


async def test_a_scope_is_made_up_where_none_is_told(registry: FaultRegistry, client: OriginClient) -> None:
    registry.fault("/manifests/", status(401, {"WWW-Authenticate": f"Bearer realm={registry.url}/token"}), 1)
    await client.manifest(APP, TAG)
    assert next(seen for seen in registry.requests if seen.path == "/token").query == {
        "scope": "repository:app:pull"
    }


async def test_callers_at_once_share_one_token(registry: FaultRegistry, client: OriginClient) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(client.manifest, APP, TAG)
    assert registry.tokens_given == 1


async def test_each_repository_has_its_own_token(registry: FaultRegistry, client: OriginClient) -> None:
    await client.manifest(APP, TAG)
    await client.manifest(Repository("reg.test", "other"), TAG)
    assert registry.tokens_given == 2


async def test_a_token_that_was_revoked_is_renewed_once(
    registry: FaultRegistry, client: OriginClient
) -> None:
    await client.manifest(APP, TAG)
    registry.valid_tokens.clear()
    await client.manifest(APP, TAG)
    assert registry.tokens_given == 2


async def test_a_token_that_never_helps_ends_in_denied(registry: FaultRegistry, client: OriginClient) -> None:
    async def useless(exchange: Exchange) -> None:
        await honest(exchange)
        registry.valid_tokens.clear()

    registry.fault("/token", useless)
    with pytest.raises(Denied):
        await client.manifest(APP, TAG)
    assert registry.tokens_given == 1


@pytest.mark.parametrize(("lifetime", "good_for"), [(300, 290), (4, 2), (None, 50), (0, 50)])
async def test_a_token_is_renewed_before_it_expires(
    lifetime: int | None,
    good_for: float,
    registry: FaultRegistry,
    client: OriginClient,
    mock_clock: MockClock,
) -> None:
    registry.token_seconds = lifetime
    await client.manifest(APP, TAG)
    mock_clock.jump(good_for - 0.5)
    await client.manifest(APP, TAG)
    assert registry.tokens_given == 1
    mock_clock.jump(1)
    await client.manifest(APP, TAG)
    assert registry.tokens_given == 2
    sent = [seen.headers.get("authorization") for seen in registry.requests if "/manifests/" in seen.path]
    assert sent == [None, "Bearer token-1", "Bearer token-1", None, "Bearer token-2"]


async def test_a_login_goes_to_the_token_server_alone(
    registry: FaultRegistry, client: OriginClient, config: Path
) -> None:
    put(config, LOGIN)
    registry.user, registry.password = "ann", "se:cret"
    await client.manifest(APP, TAG)
    sent = {seen.path: seen.headers.get("authorization") for seen in registry.requests}
    assert sent["/token"] == registry.basic
    assert sent["/v2/app/manifests/v1"] == "Bearer token-1"


async def test_an_identity_token_is_traded_in(
    registry: FaultRegistry, client: OriginClient, config: Path
) -> None:
    put(config, {"auths": {"reg.test": {"identitytoken": "refresh-me"}}})
    registry.user, registry.password = "ann", "refresh-me"
    await client.manifest(APP, TAG)
    asked = next(seen for seen in registry.requests if seen.path == "/token")
    assert asked.method == "POST"
    assert b"grant_type=refresh_token" in asked.body


async def test_basic(registry: FaultRegistry, client: OriginClient, config: Path) -> None:
    registry.auth, registry.user, registry.password = "basic", "ann", "se:cret"
    with pytest.raises(Denied, match="docker_config"):
        await client.manifest(APP, TAG)
    put(config, LOGIN)
    await client.manifest(APP, TAG)
    before = len(registry.requests)
    await client.manifest(APP, TAG)
    assert len(registry.requests) == before + 1


@pytest.mark.parametrize(
    ("code", "error"),
    [(400, Denied), (401, Denied), (403, Denied), (429, RateLimited), (500, Unavailable), (302, Unavailable)],
)
async def test_a_token_server_that_fails(
    code: int, error: type[OriginFault], registry: FaultRegistry, client: OriginClient
) -> None:
    registry.fault("/token", status(code, {"Retry-After": "3", "Location": "/elsewhere"}))
    with pytest.raises(error, match="token server") as caught:
        await client.manifest(APP, TAG)
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": 1}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": "\\u00e9"}',
        b"[" * 100_000,
    ],
)
async def test_a_token_answer_that_is_nonsense(
    body: bytes, registry: FaultRegistry, client: OriginClient
) -> None:
    registry.fault("/token", status(200, None, body))
    with pytest.raises(Unavailable, match="token server"):
        await client.manifest(APP, TAG)


@pytest.mark.parametrize(
    "challenge",
    ["", "Bearer", "Negotiate", 'Bearer realm=""', 'Bearer realm="ftp://x/"', 'Bearer realm="http://[::1"'],
)
async def test_a_challenge_that_leads_nowhere(
    challenge: str, registry: FaultRegistry, client: OriginClient
) -> None:
    registry.fault("/manifests/", status(401, {"WWW-Authenticate": challenge}))
    with pytest.raises(OriginFault):
        await client.manifest(APP, TAG)
    assert registry.tokens_given == 0
