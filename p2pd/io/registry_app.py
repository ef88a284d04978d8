"""The registry API over a `Content`: what containerd, podman and Docker talk to, on node and seeder.

How runtimes really treat a mirror decides the rules this file holds to:

* Before headers every failure is a quick 404, 403, 502 or 503, on which a client goes on to its next
  host; never 401, 408, 429 or a redirect. Headers, or that failure, come within `deadline`.
* 200 for a whole blob, 206 for every range of one, always with Content-Length, never chunked.
* A body whose source is lost ends short and the connection with a clean FIN; the digest then answers
  503 for `cooldown` seconds, so that a client which resumes goes on elsewhere.
* A client may leave at any time: the server (p2pd.io.serve) then cancels its request. Nothing here
  owns a transfer, so nothing but the stream ends.
* Credentials that a client sends are never read. Conditional requests are not answered with 304.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import PurePath
from typing import TypeVar
from urllib.parse import parse_qs

import structlog
import trio
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.routing import BaseRoute
from starlette.types import Message, Receive, Scope, Send

from p2pd.model.content import OCI_INDEX, Manifest
from p2pd.model.errors import OurFault, P2pdError, Unavailable, WrongContent, fresh
from p2pd.model.listing import Listing, tags_of
from p2pd.model.reference import Digest
from p2pd.ports.content import Blob, Content
from p2pd.ports.observer import RequestObserver
from p2pd.wire.paging import link_to_next
from p2pd.wire.ranges import ByteRange, RangeNotSatisfiable, parse_range, unsatisfied_range
from p2pd.wire.registry_api import (
    ApiRequest,
    BaseCheck,
    BlobRequest,
    ManifestRequest,
    ReferrersRequest,
    TagsRequest,
    Upstreams,
    parse_request,
)
from p2pd.wire.registry_errors import ApiError, error_answer

__all__ = ["build_app"]

log = structlog.get_logger()

T = TypeVar("T")

_CHUNK_LIMIT = 1024 * 1024
_COOLING_LIMIT = 1024
_JSON = "application/json"
_OCTETS = "application/octet-stream"
_LEFT = 499
_UNKNOWN = {ManifestRequest: "MANIFEST_UNKNOWN", BlobRequest: "BLOB_UNKNOWN"}


def build_app(
    content: Content,
    *,
    upstreams: Upstreams,
    extra_routes: Sequence[BaseRoute] = (),
    deadline: float = 9.0,
    stall: float = 60.0,
    cooldown: float = 10.0,
    observer: RequestObserver | None = None,
) -> Starlette:
    """An ASGI application: `extra_routes` first, everything else is the registry API over `content`.

    All times are in seconds. `deadline`: from request to headers. `stall`: longest wait for the next
    chunk of a body, after which it is cut; a guard behind the deadlines of `content`. `cooldown`: how
    long a blob whose body was cut answers 503. `observer` is told of every answer but those of extra routes.
    """
    app = Starlette(routes=list(extra_routes))
    app.router.default = _Registry(content, upstreams, deadline, stall, _Cooling(cooldown), observer)
    return app


class _Cooling:
    """Digests that answer 503 for a while. Bounded: the oldest entry makes room."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[Digest, tuple[float, P2pdError]] = {}

    def add(self, digest: Digest, error: P2pdError) -> None:
        self._until.pop(digest, None)
        while len(self._until) >= _COOLING_LIMIT:
            del self._until[next(iter(self._until))]
        self._until[digest] = (trio.current_time() + self._seconds, error)

    def check(self, digest: Digest) -> None:
        if digest not in self._until:
            return
        until, error = self._until[digest]
        if trio.current_time() < until:
            if isinstance(error, WrongContent):
                raise fresh(error)
            raise Unavailable(f"blob {digest} lost its last source just now; try another host, or later")
        del self._until[digest]


class _Response:
    """One answer being sent. Headers go out once, by `start`, after which `is_started`."""

    def __init__(self, send: Send, head_only: bool) -> None:
        self._send = send
        self._head_only = head_only
        self._lock = trio.Lock()
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self.is_started = False
        self.began_at = trio.current_time()
        self.first_byte_at: float | None = None
        self.error: P2pdError | None = None

    def seen_by(self, observer: RequestObserver, kind: str) -> None:
        """Tell how it ended."""
        first = None if self.first_byte_at is None else self.first_byte_at - self.began_at
        observer.answered(kind, self._status if self.is_started else _LEFT, first, self.error)

    def prepare(self, status: int, headers: dict[str, str]) -> None:
        self._status = status
        self._headers = [(key.lower().encode(), value.encode("latin-1")) for key, value in headers.items()]

    async def start(self) -> None:
        async with self._lock:
            if self.is_started:
                return
            self.is_started = True
            await self._send(
                {"type": "http.response.start", "status": self._status, "headers": self._headers}
            )

    async def body(self, data: bytes) -> None:
        if not self.is_started:
            await self.start()
        elif self._lock.locked():
            async with self._lock:
                pass
        if self.first_byte_at is None:
            self.first_byte_at = trio.current_time()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self.start()
        if self.first_byte_at is None:
            self.first_byte_at = trio.current_time()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def whole(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.prepare(status, {**headers, "Content-Length": str(len(body))})
        await self.start()
        if not self._head_only:
            await self.body(body)
        await self.end()


class _Registry:
    def __init__(
        self,
        content: Content,
        upstreams: Upstreams,
        deadline: float,
        stall: float,
        cooling: _Cooling,
        observer: RequestObserver | None,
    ) -> None:
        self._content = content
        self._upstreams = upstreams
        self._deadline = deadline
        self._stall = stall
        self._cooling = cooling
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
        else:
            await self._answer(scope, _Response(send, scope["method"] == "HEAD"))

    async def _answer(self, scope: Scope, response: _Response) -> None:
        request: ApiRequest | None = None
        try:
            if scope["method"] not in {"GET", "HEAD"}:
                raise ApiError(405, "UNSUPPORTED", "this mirror is read-only", {"Allow": "GET, HEAD"})
            raw_path = scope.get("raw_path") or scope["path"].encode()
            request = parse_request(
                raw_path.decode("latin-1"), scope["query_string"].decode("latin-1"), self._upstreams
            )
            await self._serve(request, scope, response)
        except P2pdError as error:
            _log_failure(scope, error)
            await self._refuse(request, response, error)
        except Exception as error:
            # One line, with the place: a bug here must flood neither the log nor the client.
            log.error(  # noqa: TRY400
                "request failed unexpectedly", path=scope["path"], error=repr(error), at=_origin(error)
            )
            await self._refuse(request, response, OurFault("p2pd failed; its log has the reason"))
        finally:
            if self._observer is not None:
                response.seen_by(self._observer, _kind(request))

    async def _refuse(self, request: ApiRequest | None, response: _Response, error: P2pdError) -> None:
        response.error = error
        if response.is_started:
            return
        answer = error_answer(error, _UNKNOWN.get(type(request), "NAME_UNKNOWN"))
        await response.whole(answer.status, {"Content-Type": _JSON, **answer.headers}, answer.body)

    async def _serve(self, request: ApiRequest, scope: Scope, response: _Response) -> None:
        headers = Headers(scope=scope)
        match request:
            case BaseCheck():
                base = {"Content-Type": _JSON, "Docker-Distribution-Api-Version": "registry/2.0"}
                await response.whole(200, base, b"{}")
            case ManifestRequest(repository, reference):
                manifest = await self._within(self._content.manifest, repository, reference)
                await _send_manifest(manifest, headers, scope["method"], response)
            case TagsRequest(repository):
                tags = await self._within(self._content.tags, repository, request.query)
                answer = {"Content-Type": _JSON, **_staleness(tags), **_next_page(request, tags.body, scope)}
                await response.whole(200, answer, tags.body)
            case ReferrersRequest(repository, digest, artifact_type):
                index = await self._within(self._content.referrers, repository, digest, artifact_type)
                filtered = {"OCI-Filters-Applied": "artifactType"} if artifact_type else {}
                answer = {"Content-Type": OCI_INDEX, **filtered, **_staleness(index)}
                await response.whole(200, answer, index.body)
            case BlobRequest():
                await self._send_blob(request, headers, scope["method"], response)

    async def _within(self, call: Callable[..., Awaitable[T]], *args: object) -> T:
        with trio.move_on_after(self._deadline):
            return await call(*args)
        raise Unavailable(f"no source answered in {self._deadline:g} s; try another host, or later")

    async def _send_blob(
        self, request: BlobRequest, headers: Headers, method: str, response: _Response
    ) -> None:
        give_up = trio.current_time() + self._deadline
        self._cooling.check(request.digest)
        blob = await self._within(self._content.blob, request.repository, request.digest)
        answer = {
            "Content-Type": _OCTETS,
            "Docker-Content-Digest": str(request.digest),
            "ETag": f'"{request.digest}"',
            "Accept-Ranges": "bytes",
        }
        wanted = _wanted(headers, method, answer["ETag"], blob.size)
        body = wanted or ByteRange(0, blob.size, blob.size)
        answer["Content-Length"] = str(body.stop - body.start)
        if wanted is not None:
            answer["Content-Range"] = wanted.content_range
        response.prepare(206 if wanted else 200, answer)
        if method == "HEAD":
            await response.end()
        else:
            await self._stream(request, blob, body, response, give_up)

    async def _stream(
        self, request: BlobRequest, blob: Blob, body: ByteRange, response: _Response, give_up: float
    ) -> None:
        """Headers go with the first chunk, so that a source which fails at once is still a 503."""
        async with trio.open_nursery() as nursery:

            async def start_in_time() -> None:
                await trio.sleep_until(give_up)
                await response.start()

            nursery.start_soon(start_in_time)
            failure: Exception | None = None
            try:
                await self._copy(request, blob, body, response)
            except Exception as error:
                failure = error  # raised outside: the nursery would wrap it in a group
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _copy(self, request: BlobRequest, blob: Blob, body: ByteRange, response: _Response) -> None:
        began, sent = trio.current_time(), 0
        try:
            async with aclosing(blob.chunks(body.start, body.stop)) as chunks:
                while sent < body.stop - body.start:
                    chunk = await self._next(chunks)
                    if len(chunk) > body.stop - body.start - sent:
                        raise OurFault("more bytes came than were asked for")
                    sent += len(chunk)
                    await response.body(chunk)
            await response.end()
        except P2pdError as error:
            if not response.is_started:
                raise
            response.error = error
            self._cut(request, body, sent, began, error)
        except Exception as error:
            if not response.is_started:
                raise
            response.error = OurFault(f"{error!r} at {_origin(error)}")
            self._cut(request, body, sent, began, response.error)

    async def _next(self, chunks: AsyncGenerator[bytes, None]) -> bytes:
        with trio.move_on_after(self._stall):
            try:
                return await anext(chunks)
            except StopAsyncIteration:
                raise OurFault("fewer bytes came than were asked for") from None
        raise Unavailable(f"no byte came for {self._stall:g} s")

    def _cut(self, request: BlobRequest, body: ByteRange, sent: int, began: float, error: P2pdError) -> None:
        # The answer is left unfinished: the server closes the connection, short of Content-Length.
        self._cooling.add(request.digest, error)
        is_grave = isinstance(error, OurFault | WrongContent)
        (log.error if is_grave else log.warning)(
            "blob body ended short",
            digest=str(request.digest),
            repository=str(request.repository),
            offset=body.start,
            bytes=sent,
            missing=body.stop - body.start - sent,
            seconds=round(trio.current_time() - began, 3),
            reason=str(error),
        )


def _wanted(headers: Headers, method: str, etag: str, size: int) -> ByteRange | None:
    """The range to answer with; Range means something on GET only, and once (RFC 9110 §14.2)."""
    ranges = headers.getlist("range")
    if method != "GET" or len(ranges) != 1 or headers.get("if-range", etag) != etag:
        return None
    try:
        return parse_range(ranges[0], size)
    except RangeNotSatisfiable as error:
        raise ApiError(416, "SIZE_INVALID", str(error), {"Content-Range": unsatisfied_range(size)}) from error


async def _send_manifest(manifest: Manifest, headers: Headers, method: str, response: _Response) -> None:
    descriptor = manifest.descriptor
    media_type = descriptor.media_type
    answer = {
        "Content-Type": media_type if media_type.isascii() and media_type.isprintable() else _OCTETS,
        "Docker-Content-Digest": str(descriptor.digest),
        "ETag": f'"{descriptor.digest}"',
        "Accept-Ranges": "bytes",
    }
    answer |= _staleness(manifest)
    wanted = _wanted(headers, method, answer["ETag"], len(manifest.body))
    if wanted is None:
        await response.whole(200, answer, manifest.body)
    else:
        answer["Content-Range"] = wanted.content_range
        await response.whole(206, answer, manifest.body[wanted.start : wanted.stop])


def _staleness(answer: Manifest | Listing) -> dict[str, str]:
    return {"Warning": '110 - "Response is Stale"', "P2pd-Stale": "true"} if answer.stale else {}


def _next_page(request: TagsRequest, body: bytes, scope: Scope) -> dict[str, str]:
    """Where the rest is asked for. A full page may be the last one; then the next is empty."""
    if not request.limit:
        return {}
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    ns = parse_qs(scope["query_string"].decode("latin-1")).get("ns", [None])[0]
    link = link_to_next(path, request.limit, tags_of(body) or [], ns)
    return {} if link is None else {"Link": link}


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message: Message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _kind(request: ApiRequest | None) -> str:
    match request:
        case ManifestRequest():
            return "manifest" if isinstance(request.reference, Digest) else "tag"
        case BlobRequest():
            return "blob"
        case TagsRequest():
            return "tags"
        case ReferrersRequest():
            return "referrers"
        case BaseCheck():
            return "base"
        case _:
            return "other"


def _log_failure(scope: Scope, error: P2pdError) -> None:
    # A fresh copy of an error was logged by whoever failed first.
    is_news = isinstance(error, OurFault | WrongContent) and not isinstance(error.__cause__, P2pdError)
    level = log.warning if is_news else log.debug
    level("request refused", path=scope["path"], reason=str(error))


def _origin(error: BaseException) -> str:
    """Where an unexpected error was raised, on one line: file:line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
