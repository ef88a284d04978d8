"""A registry on loopback that misbehaves on command: real HTTP (h11) on trio sockets.

`fault(match, behaviour, times)` makes the next `times` requests whose "METHOD path" contains `match`
go to `behaviour` instead of the honest handler. Everything that came is in `requests`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import h11
import trio

from p2pd.model.content import OCI_MANIFEST
from p2pd.model.reference import Digest, Tag

Headers = dict[str, str]
_FLIPPED = bytes(255 - byte for byte in range(256))
Behaviour = Callable[["Exchange"], Awaitable[None]]


@dataclass(frozen=True)
class Seen:
    """One request; header names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: Headers
    body: bytes

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


class Exchange:
    """One request and the means to answer it, rightly or not."""

    def __init__(self, registry: FaultRegistry, seen: Seen, conn: h11.Connection, raw: trio.SocketStream):
        self.registry = registry
        self.seen = seen
        self._conn = conn
        self._raw = raw
        self.stream: trio.abc.Stream = raw
        self.keep = True

    async def answer(self, status: int, headers: Headers | None = None, body: bytes = b"") -> None:
        """A whole, honest answer (without its body to a HEAD)."""
        fields = {"Content-Length": str(len(body)), **(headers or {})}
        await self._send(h11.Response(status_code=status, headers=list(fields.items())))
        if self.seen.method != "HEAD" and body:
            await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    async def head(self, status: int, headers: Headers) -> None:
        """Only a head, by hand, and no more of the protocol on this connection."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await self.raw(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode())

    async def raw(self, data: bytes) -> None:
        self.keep = False
        await self.stream.send_all(data)

    def reset(self) -> None:
        """Have the kernel send an RST when the socket is closed."""
        self.keep = False
        self._raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _send(self, event: h11.Event) -> None:
        if data := self._conn.send(event):
            await self.stream.send_all(data)


@dataclass
class _Fault:
    match: str
    behaviour: Behaviour
    times: int


@dataclass
class FaultRegistry:
    """`auth`: None, "basic" or "bearer". `user` and `password` are what both of them want, if set."""

    auth: str | None = None
    user: str = ""
    password: str = ""
    token_seconds: int | None = 300
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    requests: list[Seen] = field(default_factory=list)
    valid_tokens: set[str] = field(default_factory=set)
    tokens_given: int = 0
    connections: int = 0
    url: str = ""
    _faults: list[_Fault] = field(default_factory=list)

    def add_blob(self, body: bytes) -> Digest:
        digest = Digest(hashlib.sha256(body).hexdigest())
        self.blobs[str(digest)] = body
        return digest

    def add_manifest(self, body: bytes, *tags: Tag, media_type: str = OCI_MANIFEST) -> Digest:
        digest = Digest(hashlib.sha256(body).hexdigest())
        for reference in (str(digest), *map(str, tags)):
            self.manifests[reference] = (media_type, body)
        return digest

    def fault(self, match: str, behaviour: Behaviour, times: int = 1_000_000) -> None:
        self._faults.append(_Fault(match, behaviour, times))

    def heal(self) -> None:
        self._faults.clear()

    def count(self, match: str) -> int:
        return sum(match in seen.line for seen in self.requests)

    async def run(
        self,
        context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve, on a free port where none is given; reports, and keeps, the base URL."""

        async def handle(raw: trio.SocketStream) -> None:
            self.connections += 1
            await self._connection(raw, context)

        listeners = await trio.open_tcp_listeners(port, host=host)
        port = listeners[0].socket.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://{host}:{port}"
        task_status.started(self.url)
        await trio.serve_listeners(handle, listeners)

    async def _connection(self, raw: trio.SocketStream, context: ssl.SSLContext | None) -> None:
        stream: trio.abc.Stream = raw
        if context is not None:
            stream = trio.SSLStream(raw, context, server_side=True, https_compatible=True)
        async with stream:
            try:
                conn = h11.Connection(h11.SERVER)
                while await self._one(conn, stream, raw):
                    conn.start_next_cycle()
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
                pass

    async def _one(self, conn: h11.Connection, stream: trio.abc.Stream, raw: trio.SocketStream) -> bool:
        seen = await _receive(conn, stream)
        if seen is None:
            return False
        self.requests.append(seen)
        exchange = Exchange(self, seen, conn, raw)
        exchange.stream = stream
        for fault in self._faults:
            if fault.times > 0 and fault.match in seen.line:
                fault.times -= 1
                await fault.behaviour(exchange)
                break
        else:
            await honest(exchange)
        return exchange.keep and conn.our_state is h11.DONE and conn.their_state is h11.DONE

    def challenge(self) -> Headers:
        if self.auth == "basic":
            return {"WWW-Authenticate": 'Basic realm="test"'}
        realm = f'Bearer realm="{self.url}/token",service="registry.test"'
        return {"WWW-Authenticate": f'{realm},scope="repository:app:pull"'}

    def admits(self, seen: Seen) -> bool:
        authorization = seen.headers.get("authorization", "")
        if self.auth == "basic":
            return authorization == self.basic
        return self.auth is None or authorization.removeprefix("Bearer ") in self.valid_tokens

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


async def _receive(conn: h11.Connection, stream: trio.abc.Stream) -> Seen | None:
    request, body = None, b""
    while True:
        event = conn.next_event()
        if event is h11.NEED_DATA:
            conn.receive_data(bytes(await stream.receive_some(65536)))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            target = urlsplit(request.target.decode())
            query = {name: values[-1] for name, values in parse_qs(target.query).items()}
            headers = {name.decode().lower(): value.decode() for name, value in request.headers}
            return Seen(request.method.decode(), target.path, query, headers, body)
        else:
            return None


async def honest(exchange: Exchange) -> None:
    """What a good registry does."""
    registry, seen = exchange.registry, exchange.seen
    if seen.path == "/token":
        await _token(exchange)
    elif not registry.admits(seen):
        await exchange.answer(401, registry.challenge(), b'{"errors":[{"code":"UNAUTHORIZED"}]}')
    elif seen.path in registry.documents:
        await exchange.answer(200, {"Content-Type": "application/json"}, registry.documents[seen.path])
    elif "/manifests/" in seen.path and (found := registry.manifests.get(seen.path.rsplit("/", 1)[1])):
        digest = f"sha256:{hashlib.sha256(found[1]).hexdigest()}"
        await exchange.answer(200, {"Content-Type": found[0], "Docker-Content-Digest": digest}, found[1])
    elif "/blobs/" in seen.path and (body := registry.blobs.get(seen.path.rsplit("/", 1)[1])) is not None:
        await _blob(exchange, body)
    else:
        await exchange.answer(404, None, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"not here"}]}')


async def _blob(exchange: Exchange, body: bytes) -> None:
    start, stop = range_of(exchange.seen, len(body))
    if start >= len(body) > 0:
        await exchange.answer(416)
    elif "range" in exchange.seen.headers:
        content_range = f"bytes {start}-{stop - 1}/{len(body)}"
        await exchange.answer(206, {"Content-Range": content_range}, body[start:stop])
    else:
        await exchange.answer(200, None, body)


def range_of(seen: Seen, size: int) -> tuple[int, int]:
    first, _, last = seen.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
    return int(first), min(int(last) + 1, size) if last else size


async def _token(exchange: Exchange) -> None:
    registry, seen = exchange.registry, exchange.seen
    refresh = parse_qs(seen.body.decode()).get("refresh_token", [""])[-1]
    known = seen.headers.get("authorization") == registry.basic or refresh == registry.password
    if registry.user and not known:
        await exchange.answer(401)
        return
    registry.tokens_given += 1
    token = f"token-{registry.tokens_given}"
    registry.valid_tokens.add(token)
    document: dict[str, object] = {"token": token}
    if registry.token_seconds is not None:
        document["expires_in"] = registry.token_seconds
    await exchange.answer(200, {"Content-Type": "application/json"}, json.dumps(document).encode())


# Faults. Those of a body answer a range as an honest server would, up to the point where they fail.


def status(code: int, headers: Headers | None = None, body: bytes = b"") -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.answer(code, headers, body)

    return behave


def redirect(location: str, code: int = 307) -> Behaviour:
    return status(code, {"Location": location})


async def silence(exchange: Exchange) -> None:
    """Take the request and never answer."""
    exchange.keep = False
    await trio.sleep_forever()


async def reset(exchange: Exchange) -> None:
    """RST instead of an answer."""
    exchange.reset()


def _broken_body(after: int, then: Callable[[Exchange], Awaitable[None]]) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        body = exchange.registry.blobs[exchange.seen.path.rsplit("/", 1)[1]]
        start, stop = range_of(exchange.seen, len(body))
        headers = {"Content-Length": str(stop - start)}
        if "range" in exchange.seen.headers:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        await exchange.head(206 if "range" in exchange.seen.headers else 200, headers)
        await exchange.raw(body[start : min(start + after, stop)])
        await then(exchange)

    return behave


async def _nothing(_exchange: Exchange) -> None:
    return


async def _reset_now(exchange: Exchange) -> None:
    exchange.reset()


async def _for_ever(_exchange: Exchange) -> None:
    await trio.sleep_forever()


def short_body(after: int) -> Behaviour:
    """`after` bytes of the body, then a clean FIN."""
    return _broken_body(after, _nothing)


def reset_body(after: int) -> Behaviour:
    """`after` bytes of the body, then RST."""
    return _broken_body(after, _reset_now)


def stalled_body(after: int) -> Behaviour:
    """`after` bytes of the body, then nothing for ever."""
    return _broken_body(after, _for_ever)


def drip(step: int, pause: float) -> Behaviour:
    """The whole body, `step` bytes every `pause` seconds."""

    async def behave(exchange: Exchange) -> None:
        body = exchange.registry.blobs[exchange.seen.path.rsplit("/", 1)[1]]
        await exchange.head(200, {"Content-Length": str(len(body))})
        for position in range(0, len(body), step):
            await exchange.raw(body[position : position + step])
            await trio.sleep(pause)

    return behave


async def ignore_range(exchange: Exchange) -> None:
    """200 and everything, whatever was asked for."""
    await exchange.answer(200, None, exchange.registry.blobs[exchange.seen.path.rsplit("/", 1)[1]])


async def wrong_bytes(exchange: Exchange) -> None:
    """The right number of wrong bytes."""
    body = exchange.registry.blobs[exchange.seen.path.rsplit("/", 1)[1]]
    await _blob(exchange, body.translate(_FLIPPED))
