"""Proxies of the environment."""

import httpx
import pytest
import trio

from benchmarks.testbed.registry import FaultRegistry
from p2pd.io.http import HttpPool
from p2pd.model.errors import ConfigError


@pytest.mark.parametrize(
    ("no_proxy", "through_proxy"), [("", True), ("elsewhere.example", True), ("127.0.0.1", False)]
)
async def test_the_environment_says_what_goes_through_a_proxy(
    no_proxy: str, through_proxy: bool, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, registry = FaultRegistry(), FaultRegistry()
    await nursery.start(proxy.run)
    await nursery.start(registry.run)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    pool = HttpPool()
    response = await pool.send("GET", httpx.URL(f"{registry.url}/v2/"), {})
    await response.aclose()
    await pool.aclose()
    used, unused = (proxy, registry) if through_proxy else (registry, proxy)
    assert [request.headers["host"] for request in used.requests] == [registry.url.removeprefix("http://")]
    assert unused.requests == []


@pytest.mark.parametrize("proxy", ["socks5://ann:secret@10.0.0.1:1080", "ftp://10.0.0.1", "://10.0.0.1"])
def test_a_proxy_that_cannot_be_used_is_told_at_once(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigError, match=r"^ALL_PROXY in the environment") as told:
        HttpPool()
    assert "secret" not in str(told.value)
    HttpPool(use_proxy=False)
