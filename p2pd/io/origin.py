"""Upstream registries, asked directly: which ones, with whose login, through which redirects."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from p2pd.io.auth import Authenticator
from p2pd.io.credentials import DockerConfig
from p2pd.io.http import HttpPool, Timeouts, discard
from p2pd.io.registry_client import RegistryClient
from p2pd.model.errors import Denied, Unavailable
from p2pd.model.reference import Repository
from p2pd.model.upstream import UpstreamSpec
from p2pd.wire.challenge import parse_challenges

__all__ = ["OriginClient"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5


class OriginClient(RegistryClient):
    """`p2pd.ports.origin.Origin` over HTTP, for the registries in `upstreams` and no others.

    Anything else is Denied before a packet leaves. A login or token goes to the upstream's own
    scheme, host and port and to its token server, never along a redirect. Raises ConfigError
    when a `ca_file` cannot be used.
    """

    def __init__(
        self,
        upstreams: Mapping[str, UpstreamSpec],
        credentials: DockerConfig | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._upstreams = dict(upstreams)
        self._auth = Authenticator(credentials or DockerConfig(None))
        self._pools = {
            ca_file: HttpPool(ca_file, timeouts) for ca_file in {spec.ca_file for spec in upstreams.values()}
        }

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    async def _send(
        self,
        method: str,
        repository: Repository,
        path: str,
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> httpx.Response:
        upstream = self._upstreams.get(repository.registry)
        if upstream is None:
            raise Denied(
                f"{repository.registry} is not an allowed upstream: "
                f'add [upstreams."{repository.registry}"] to the configuration if it should be'
            )
        url = httpx.URL(
            f"{upstream.url.rstrip('/')}/v2/{repository.name}{path}" + (f"?{query}" if query else "")
        )
        pool = self._pools[upstream.ca_file]
        header = self._auth.header(repository)
        response = await self._follow(pool, method, url, headers or {}, header)
        if response.status_code == 401 and _place(response.url) == _place(url):
            # Asked for the first time, or the remembered token expired before its time.
            challenges = parse_challenges(response.headers.get_list("www-authenticate"))
            await discard(response)
            header = await self._auth.renew(pool, upstream, repository, challenges, header)
            response = await self._follow(pool, method, url, headers or {}, header)
        return response

    async def _follow(
        self,
        pool: HttpPool,
        method: str,
        start: httpx.URL,
        headers: Mapping[str, str],
        authorization: str | None,
    ) -> httpx.Response:
        """Send, and follow redirects by hand: httpx would not keep the rules above for us."""
        url, seen = start, {start}
        for _ in range(_MOST_REDIRECTS + 1):
            own = {"Authorization": authorization} if authorization and _place(url) == _place(start) else {}
            response = await pool.send(method, url, {**headers, **own})
            if response.status_code not in _REDIRECTS:
                return response
            await discard(response)
            url = _target(response, url)
            if url in seen:
                raise Unavailable(f"{start.host} redirects in a circle")
            seen.add(url)
        raise Unavailable(f"{start.host} redirects more than {_MOST_REDIRECTS} times")


def _place(url: httpx.URL) -> tuple[str, str, int | None]:
    default = {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, url.port if url.port is not None else default


def _target(response: httpx.Response, url: httpx.URL) -> httpx.URL:
    try:
        target = url.join(response.headers.get("location", ""))
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Unavailable(f"{url.host} redirects to a malformed URL") from error
    if target.scheme not in {"http", "https"} or not target.host or target.userinfo:
        raise Unavailable(f"{url.host} redirects to what is no http(s) URL")
    if url.scheme == "https" and target.scheme == "http":
        raise Denied(f"{url.host} redirects from https to http ({target.host}): refused")
    return target
