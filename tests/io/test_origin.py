"""Which upstream is asked, and what goes along a redirect."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from benchmarks.testbed.registry import FaultRegistry, redirect, status
from p2pd.io.credentials import DockerConfig
from p2pd.io.origin import OriginClient
from p2pd.model.errors import ConfigError, Denied, OriginFault, Unavailable
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.model.upstream import UpstreamSpec
from tests.support.certificate import make_certificate, server_context

APP = Repository("reg.test", "app")
BODY = bytes(range(256)) * 1024


@pytest.fixture
async def store(nursery: trio.Nursery) -> FaultRegistry:
    """Where the registry's redirects lead: another port."""
    store = FaultRegistry()
    await nursery.start(store.run)
    return store


@pytest.fixture
async def client(registry: FaultRegistry, tmp_path: Path) -> AsyncIterator[OriginClient]:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {"reg.test": {"username": "ann", "password": "secret"}}}))
    client = OriginClient({"reg.test": UpstreamSpec("reg.test", registry.url)}, DockerConfig(config))
    yield client
    await client.aclose()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own CA, and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


async def tls_registry(nursery: trio.Nursery, certificate: tuple[Path, Path]) -> FaultRegistry:
    registry = FaultRegistry()
    await nursery.start(registry.run, server_context(certificate))
    return registry


async def read(client: OriginClient, digest: Digest, start: int = 0) -> bytes:
    async with client.open_blob(APP, digest, start) as stream:
        return b"".join([chunk async for chunk in stream.chunks])


async def test_other_registries_are_denied_before_a_packet_leaves(
    registry: FaultRegistry, client: OriginClient
) -> None:
    other = Repository("127.0.0.1:80", "app")
    with pytest.raises(Denied, match=r'add \[upstreams\."127\.0\.0\.1:80"\]'):
        await client.manifest(other, Tag("v1"))
    with pytest.raises(Denied):
        async with client.open_blob(other, Digest("0" * 64)):
            pass
    assert registry.requests == []


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_without_the_login(
    code: int, registry: FaultRegistry, store: FaultRegistry, client: OriginClient
) -> None:
    registry.auth, registry.user, registry.password = "basic", "ann", "secret"
    digest = registry.add_blob(BODY)
    store.add_blob(BODY)
    assert await read(client, digest) == BODY
    registry.fault("/blobs/", redirect(f"{store.url}/elsewhere/blobs/{digest}?signature=x", code))
    assert await read(client, digest, 1000) == BODY[1000:]
    assert registry.requests[-1].headers["authorization"] == registry.basic
    assert store.requests[-1].headers["range"] == "bytes=1000-"
    assert all("authorization" not in seen.headers for seen in store.requests)


async def test_a_redirect_within_the_upstream_keeps_the_login(
    registry: FaultRegistry, client: OriginClient
) -> None:
    registry.auth, registry.user, registry.password = "basic", "ann", "secret"
    digest = registry.add_blob(BODY)
    registry.fault("/v2/app/blobs/", redirect(f"/v2/moved/blobs/{digest}"))
    assert await read(client, digest) == BODY


async def test_a_401_behind_a_redirect_gets_no_login(
    registry: FaultRegistry, store: FaultRegistry, client: OriginClient
) -> None:
    store.auth = "basic"
    digest = registry.add_blob(BODY)
    registry.fault("/blobs/", redirect(f"{store.url}/blobs/{digest}"))
    with pytest.raises(Denied):
        await read(client, digest)
    assert store.count("GET") == 1
    assert all("authorization" not in seen.headers for seen in store.requests)


async def test_redirects_in_a_circle(
    registry: FaultRegistry, store: FaultRegistry, client: OriginClient
) -> None:
    digest = registry.add_blob(BODY)
    registry.fault("/blobs/", redirect(f"{store.url}/blobs/{digest}"))
    store.fault("/blobs/", redirect(f"{registry.url}/v2/app/blobs/{digest}"))
    with pytest.raises(Unavailable, match="circle"):
        await read(client, digest)
    assert len(registry.requests) + len(store.requests) == 2


async def test_redirects_without_end(registry: FaultRegistry, client: OriginClient) -> None:
    digest = registry.add_blob(BODY)
    for hop in range(20):
        registry.fault(f"/hop{hop}/", redirect(f"/hop{hop + 1}/"))
    registry.fault("/blobs/", redirect("/hop0/"))
    with pytest.raises(Unavailable, match="more than 5"):
        await read(client, digest)
    assert len(registry.requests) == 6


@pytest.mark.parametrize(
    "location",
    ["", "ftp://127.0.0.1/x", "http://", "http://[::1", "http://a:b@127.0.0.1/", "file:///etc/passwd"],
)
async def test_redirects_to_nonsense(location: str, registry: FaultRegistry, client: OriginClient) -> None:
    digest = registry.add_blob(BODY)
    registry.fault("/blobs/", redirect(location))
    with pytest.raises(OriginFault):
        await read(client, digest)


async def test_cookies_are_not_kept(registry: FaultRegistry, client: OriginClient) -> None:
    registry.fault("/v2/", status(404, {"Set-Cookie": "a=b; Path=/"}))
    for _ in range(2):
        with pytest.raises(OriginFault):
            await client.manifest(APP, Tag("v1"))
    assert all("cookie" not in seen.headers for seen in registry.requests)


async def test_an_unknown_ca_is_unavailable_with_the_reason(
    nursery: trio.Nursery, certificate: tuple[Path, Path]
) -> None:
    registry = await tls_registry(nursery, certificate)
    client = OriginClient({"reg.test": UpstreamSpec("reg.test", registry.url)})
    try:
        with pytest.raises(Unavailable, match=r"not trusted.*ca_file"):
            await client.manifest(APP, Tag("v1"))
    finally:
        await client.aclose()
    assert registry.requests == []


async def test_a_ca_file_is_trusted_and_https_is_not_left(
    nursery: trio.Nursery, registry: FaultRegistry, certificate: tuple[Path, Path]
) -> None:
    secure = await tls_registry(nursery, certificate)
    digest = secure.add_blob(BODY)
    client = OriginClient({"reg.test": UpstreamSpec("reg.test", secure.url, ca_file=str(certificate[0]))})
    try:
        assert await read(client, digest) == BODY
        secure.fault("/blobs/", redirect(f"{registry.url}/blobs/{digest}"))
        with pytest.raises(Denied, match="https to http"):
            await read(client, digest)
        secure.heal()
        secure.auth = "bearer"
        in_clear = {"WWW-Authenticate": f'Bearer realm="{registry.url}/token"'}
        secure.fault("/blobs/", status(401, in_clear))
        with pytest.raises(Denied, match="in clear"):
            await read(client, digest)
    finally:
        await client.aclose()
    assert registry.requests == []


async def test_plain_http_against_https_and_back(
    nursery: trio.Nursery, registry: FaultRegistry, certificate: tuple[Path, Path]
) -> None:
    secure = await tls_registry(nursery, certificate)
    for url in (secure.url.replace("https", "http"), registry.url.replace("http", "https")):
        client = OriginClient({"reg.test": UpstreamSpec("reg.test", url)})
        try:
            with pytest.raises(Unavailable):
                await client.manifest(APP, Tag("v1"))
        finally:
            await client.aclose()


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_ca_file_that_cannot_be_used(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="ca_file"):
        OriginClient({"reg.test": UpstreamSpec("reg.test", "https://reg.test", ca_file=str(path))})
