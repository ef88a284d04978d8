"""How an upstream registry is shown who is asking: tokens (Bearer) and Basic.

Source: distribution-spec token authentication (docs.docker.com/registry/spec/auth/token, /oauth),
RFC 6750, RFC 7617.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import structlog
import trio

from p2pd.io.credentials import DockerConfig, Login
from p2pd.io.http import HttpPool, discard, read_body
from p2pd.model.errors import Denied, OriginFault, RateLimited, Unavailable
from p2pd.model.reference import Repository
from p2pd.model.upstream import UpstreamSpec
from p2pd.wire.challenge import Challenge
from p2pd.wire.response import retry_after

__all__ = ["Authenticator"]

log = structlog.get_logger()

_TOKEN_ANSWER_LIMIT = 256 * 1024
_TOKEN_SHAPE = re.compile(r"[\x21-\x7e]{1,65536}")

_DEFAULT_LIFETIME = 60.0
"""Seconds, where a token server tells none (distribution token specification)."""

_LONGEST_LIFETIME = 24 * 3600.0
_MARGIN = 10.0
_BASIC_LIFETIME = 300.0
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class _Grant:
    header: str
    expires_at: float


class Authenticator:
    """Authorization headers by repository, kept till shortly before they expire.

    Times are trio's monotonic clock. One renewal a repository goes on at a time; whoever waited
    for it uses its result.
    """

    def __init__(self, credentials: DockerConfig) -> None:
        self._credentials = credentials
        self._grants: dict[Repository, _Grant] = {}
        self._locks: dict[Repository, trio.Lock] = {}

    def header(self, repository: Repository) -> str | None:
        """What to send as Authorization, None while nothing was asked for or it has expired."""
        grant = self._grants.get(repository)
        return grant.header if grant is not None and trio.current_time() < grant.expires_at else None

    async def renew(
        self,
        pool: HttpPool,
        upstream: UpstreamSpec,
        repository: Repository,
        challenges: Sequence[Challenge],
        refused: str | None,
    ) -> str:
        """A header other than `refused`, the one (if any) just answered with 401.

        Raises Denied where there is no way in, and what the token server's failure is.
        """
        lock = self._locks.setdefault(repository, trio.Lock())
        try:
            async with lock:
                current = self.header(repository)
                if current is not None and current != refused:
                    return current
                grant = await self._grant(pool, upstream, repository, challenges)
                self._remember(repository, grant)
                return grant.header
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._locks.pop(repository, None)

    def _remember(self, repository: Repository, grant: _Grant) -> None:
        self._grants.pop(repository, None)
        while len(self._grants) >= _REMEMBERED:
            del self._grants[next(iter(self._grants))]
        self._grants[repository] = grant

    async def _grant(
        self,
        pool: HttpPool,
        upstream: UpstreamSpec,
        repository: Repository,
        challenges: Sequence[Challenge],
    ) -> _Grant:
        login = await self._credentials.login(upstream.registry, httpx.URL(upstream.url).netloc.decode())
        for challenge in challenges:
            if challenge.scheme == "bearer" and "realm" in challenge.params:
                realm = _realm(challenge.params["realm"], upstream)
                return await _fetch_token(pool, realm, _asked(challenge, repository), login, upstream)
        if any(challenge.scheme == "basic" for challenge in challenges):
            if login is None or not login.username:
                raise Denied(f"{upstream.registry} wants a login: add one for it to the docker_config file")
            return _Grant(login.basic, trio.current_time() + _BASIC_LIFETIME)
        raise Denied(f"{upstream.registry} refused {repository} and offers no way to log in that p2pd knows")


def _realm(text: str, upstream: UpstreamSpec) -> httpx.URL:
    try:
        realm = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Unavailable(f"{upstream.registry} names a malformed token server") from error
    if realm.userinfo or not realm.host or realm.scheme not in {"https", "http"}:
        raise Unavailable(f"{upstream.registry} names a token server that is no http(s) URL")
    if realm.scheme != "https" and not upstream.url.startswith("http://"):
        raise Denied(f"{upstream.registry} wants the login sent in clear to {realm.host}: refused")
    return realm


def _asked(challenge: Challenge, repository: Repository) -> dict[str, str]:
    asked = {"scope": challenge.params.get("scope") or f"repository:{repository.name}:pull"}
    if service := challenge.params.get("service"):
        asked["service"] = service
    return asked


async def _fetch_token(
    pool: HttpPool, realm: httpx.URL, asked: dict[str, str], login: Login | None, upstream: UpstreamSpec
) -> _Grant:
    began = trio.current_time()
    if login is not None and login.identity_token:
        form = asked | {
            "grant_type": "refresh_token",
            "client_id": "p2pd",
            "refresh_token": login.identity_token,
        }
        response = await pool.send("POST", realm, {}, form)
    else:
        headers = {} if login is None else {"Authorization": login.basic}
        response = await pool.send("GET", realm.copy_merge_params(asked), headers)
    if response.status_code != 200:
        await discard(response)
        raise _token_fault(response, upstream, login)
    token, lifetime = _read_token(await read_body(response, _TOKEN_ANSWER_LIMIT), realm.host)
    log.debug("auth.token", registry=upstream.registry, scope=asked["scope"], seconds=lifetime)
    return _Grant(f"Bearer {token}", began + max(lifetime - _MARGIN, lifetime / 2))


def _token_fault(response: httpx.Response, upstream: UpstreamSpec, login: Login | None) -> OriginFault:
    host, status = response.url.host, response.status_code
    if status in {400, 401, 403}:
        who = "anonymous access" if login is None else "the login in the docker_config file"
        return Denied(f"token server {host} of {upstream.registry} refused {who} (HTTP {status})")
    if status == 429:
        after = retry_after(response.headers.get("retry-after"), time.time())
        return RateLimited(f"token server {host} of {upstream.registry} limits our requests", after)
    return Unavailable(f"token server {host} of {upstream.registry} answers HTTP {status}")


def _read_token(body: bytes, host: str) -> tuple[str, float]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Unavailable(f"token server {host} answers with something that is not a JSON object")
    token = document.get("token") or document.get("access_token")
    if not isinstance(token, str) or not _TOKEN_SHAPE.fullmatch(token):
        raise Unavailable(f"token server {host} answers without a usable token")
    lifetime = document.get("expires_in")
    if not isinstance(lifetime, int | float) or isinstance(lifetime, bool) or not lifetime > 0:
        lifetime = _DEFAULT_LIFETIME
    return token, float(min(lifetime, _LONGEST_LIFETIME))
