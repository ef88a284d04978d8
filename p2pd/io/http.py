"""httpx on trio, made to fail in p2pd's own words.

One `HttpPool` is one set of kept-alive connections with one TLS trust. It follows no redirect,
keeps no cookie, decodes nothing, and maps every foreign exception: above this file there are
only OriginFaults.
"""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.request import getproxies

import httpcore
import httpx
import trio

from p2pd import __version__
from p2pd.model.errors import ConfigError, Unavailable, WrongContent

__all__ = ["HttpPool", "Timeouts", "body_chunks", "discard", "read_body"]

_CONNECTIONS = 100
_KEPT_ALIVE = 20
_KEPT_ALIVE_SECONDS = 25.0
"""Less than a seeder's 30 s (p2pd.io.serve), else a request now and then meets its end of the connection."""

_READ = 512 * 1024

_DISCARD_BYTES = 64 * 1024
_DISCARD_SECONDS = 2.0

_FOREIGN = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect (TCP, then TLS), for headers to come in all, and without a byte of the body."""

    connect: float = 5.0
    headers: float = 10.0
    stall: float = 15.0


class HttpPool:
    """Connections that trust the system's CAs and those in `ca_file` (PEM).

    `use_proxy`: go through the proxy that the environment names, if any (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY,
    NO_PROXY, in capitals or not). Raises ConfigError when `ca_file` or that proxy cannot be used.
    """

    def __init__(
        self, ca_file: str | None = None, timeouts: Timeouts | None = None, *, use_proxy: bool = True
    ) -> None:
        self._timeouts = timeouts or Timeouts()
        self._ca_file, self._use_proxy = ca_file, use_proxy
        if use_proxy:
            _check_proxies()
        if ca_file:
            _trust(ca_file)

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        """Made at the first use: most nodes rarely need some of their pools."""
        client = httpx.AsyncClient(
            verify=_trust(self._ca_file),
            trust_env=self._use_proxy,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"User-Agent": f"p2pd/{__version__}", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(
                self._timeouts.stall, connect=self._timeouts.connect, pool=self._timeouts.headers
            ),
            limits=httpx.Limits(
                max_connections=_CONNECTIONS,
                max_keepalive_connections=_KEPT_ALIVE,
                keepalive_expiry=_KEPT_ALIVE_SECONDS,
            ),
        )
        _read_widely(client)
        return client

    async def aclose(self) -> None:
        """Close every connection, those in use too."""
        if "_client" in self.__dict__:
            await self._client.aclose()

    async def send(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Any answer, its body still to be read; the caller closes it. Raises Unavailable.

        A request that breaks before its headers is sent once more: as a rule it went out on a
        kept-alive connection that the other side had just closed.
        """
        with trio.move_on_after(self._timeouts.headers):
            try:
                request = self._client.build_request(method, url, headers=headers, data=form)
                try:
                    return await self._client.send(request, stream=True)
                except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                    return await self._client.send(request, stream=True)
            except _FOREIGN as error:
                raise _unavailable(error, url.host) from error
        raise Unavailable(f"{url.host} sent no answer within {self._timeouts.headers:g} s")


# ruff: noqa: ASYNC109 - the signatures are httpcore's
class _WideStream(httpcore.AsyncNetworkStream):
    """A connection that is read as far as the kernel has bytes: httpcore asks for 64 KiB at a time, and each
    read costs a way up through httpcore, h11 and httpx, whatever it brings."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max(max_bytes, _READ), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _WideStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


class _WideBackend(httpcore.AsyncNetworkBackend):
    """httpcore's trio backend with `_WideStream`s."""

    def __init__(self) -> None:
        self._trio = httpcore.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _WideStream(
            await self._trio.connect_tcp(host, port, timeout, local_address, socket_options=socket_options)
        )

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


def _check_proxies() -> None:
    """httpx would fail on these at the first request only, in the midst of a pull. Raises ConfigError.

    A proxy's URL may hold a password: it is not told.
    """
    named = getproxies()
    for kind in ("http", "https", "all"):
        scheme, is_url, _ = named.get(kind, "").partition("://")
        if is_url and scheme.lower() not in {"http", "https"}:
            raise ConfigError(
                f"{kind.upper()}_PROXY in the environment names a proxy of another kind than http:// or "
                "https://: change it, or take it out of this service's environment"
            )


def _read_widely(client: httpx.AsyncClient) -> None:
    """httpcore takes a network backend; httpx has no word for it yet, so it is put into its pools."""
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx.AsyncHTTPTransport):
            transport._pool._network_backend = _WideBackend()


async def body_chunks(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The body as it comes, in non-empty chunks of at most 512 KiB; closes the response at its end.

    Raises Unavailable when the connection breaks, stalls, or ends before Content-Length. To be
    used under `aclosing`.
    """
    raw = response.aiter_raw()
    try:
        async for chunk in raw:
            if chunk:
                yield chunk
    except _FOREIGN as error:
        raise _unavailable(error, response.url.host) from error
    finally:
        await _finish(response, raw)


async def read_body(response: httpx.Response, limit: int) -> bytes:
    """The whole body, closing the response; raises WrongContent as soon as it is over `limit` bytes."""
    body = bytearray()
    async with aclosing(body_chunks(response)) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > limit:
                raise WrongContent(f"{response.url.host} sends more than the {limit} bytes allowed here")
    return bytes(body)


async def discard(response: httpx.Response) -> bytes:
    """Close a response nobody wants, keeping the connection when its body is short; what was read."""
    body = bytearray()
    with trio.move_on_after(_DISCARD_SECONDS), suppress(Unavailable):
        async with aclosing(body_chunks(response)) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > _DISCARD_BYTES:
                    break
    return bytes(body)


async def _finish(response: httpx.Response, raw: AsyncIterator[bytes]) -> None:
    """Close a response that may have been left half-way.

    httpx nests generators, and closing the outermost leaves the inner ones to the garbage
    collector, of which trio warns. A cancelled read ends them all, from the inside out.
    """
    await response.aclose()
    with trio.CancelScope(deadline=-math.inf), suppress(*_FOREIGN):
        async for _ in raw:
            pass


class _Trust(ssl.SSLContext):
    """Trusts the system's CAs, and reads them when TLS is first spoken: that takes 20 ms and 2 MB, and the
    seeder of many sites is plain HTTP."""

    _has_read = False

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        if not self._has_read:
            self.load_default_certs()
            self._has_read = True
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)


@lru_cache(maxsize=32)
def _trust(ca_file: str | None) -> ssl.SSLContext:
    """One context for all pools of the same trust."""
    context = _Trust(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"ca_file {ca_file} cannot be used: {error.strerror or error}") from error
    return context


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (httpx.ConnectTimeout, "cannot be connected to in time"),
    (httpx.PoolTimeout, "is already sending as much as p2pd asks of one host at once"),
    (httpx.ReadTimeout, "stopped sending"),
    (httpx.WriteTimeout, "stopped reading"),
    (httpx.RemoteProtocolError, "broke off or does not speak HTTP"),
    (httpx.ReadError, "broke the connection"),
    (httpx.WriteError, "broke the connection"),
    (httpx.ProxyError, "cannot be reached through the proxy"),
    (httpx.UnsupportedProtocol, "has a URL that is neither http nor https"),
    (httpx.InvalidURL, "has a malformed URL"),
)


def _unavailable(error: Exception, host: str) -> Unavailable:
    if isinstance(error, httpx.ConnectError):
        return _unconnected(error, host)
    for kind, words in _REASONS:
        if isinstance(error, kind):
            detail = str(error)
            return Unavailable(f"{host} {words}" + (f": {detail}" if detail else ""))
    return Unavailable(f"{host} cannot be asked: {type(error).__name__} {error}")


def _unconnected(error: httpx.ConnectError, host: str) -> Unavailable:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Unavailable(
                f"{host} has a TLS certificate that is not trusted ({cause.verify_message}): "
                "set ca_file of this upstream if it is right"
            )
        if isinstance(cause, ssl.SSLError):
            return Unavailable(f"{host} and TLS do not agree: {cause.reason or cause}")
        if isinstance(cause, OSError) and cause.strerror:
            # trio names the address in its own words, the resolver's numbers are negative.
            number = cause.errno or 0
            told = os.strerror(number) if number > 0 else cause.strerror
            return Unavailable(f"{host} cannot be connected to: {told}")
        if isinstance(cause, BaseExceptionGroup):  # trio's attempts at several addresses
            cause = cause.exceptions[0]
        else:
            cause = cause.__cause__ or cause.__context__
    return Unavailable(f"{host} cannot be connected to: {error}")
