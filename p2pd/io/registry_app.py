"""The registry API over a `Content`: what containerd, podman and Docker talk to, on node and seeder.

How runtimes really treat a mirror decides the rules that hold here and in `p2pd.io.registry_blobs`:

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

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from urllib.parse import parse_qs

import structlog
import trio
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.routing import BaseRoute
from starlette.types import Message, Receive, Scope, Send

from p2pd.io.registry_blobs import BlobSender
from p2pd.io.registry_response import Response, range_of, where_raised
from p2pd.model.content import OCI_INDEX, Holding, Manifest
from p2pd.model.errors import OurFault, P2pdError, Unavailable, WrongContent
from p2pd.model.listing import Listing, tags_of
from p2pd.model.reference import Digest
from p2pd.ports.content import Content
from p2pd.ports.observer import RequestObserver
from p2pd.wire.paging import link_to_next
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

_JSON = "application/json"
_OCTETS = "application/octet-stream"
_UNKNOWN = {ManifestRequest: "MANIFEST_UNKNOWN", BlobRequest: "BLOB_UNKNOWN"}


def build_app(
    content: Content,
    *,
    upstreams: Upstreams,
    extra_routes: Sequence[BaseRoute] = (),
    deadline: float = 9.0,
    stall: float = 600.0,
    cooldown: float = 10.0,
    observer: RequestObserver | None = None,
    holding: Callable[[Digest], Holding | None] = lambda _digest: None,
) -> Starlette:
    """An ASGI application: `extra_routes` first, everything else is the registry API over `content`.

    All times are in seconds. `deadline`: from request to headers. `stall`: longest wait for the next
    chunk of a body, after which it is cut; a guard behind `content`, which ends what has no live source
    long before: a layer may wait for minutes in a seeder's line on a slow link. `cooldown`: how
    long a blob whose body was cut answers 503. `observer` is told of every answer but those of extra routes.
    `holding`: how much of a blob is here, as its answers say when their headers go; None for nothing.
    """
    app = Starlette(routes=list(extra_routes))
    blobs = BlobSender(stall, cooldown, holding)
    app.router.default = _Registry(content, upstreams, deadline, blobs, observer)
    return app


class _Registry:
    def __init__(
        self,
        content: Content,
        upstreams: Upstreams,
        deadline: float,
        blobs: BlobSender,
        observer: RequestObserver | None,
    ) -> None:
        self._content = content
        self._upstreams = upstreams
        self._deadline = deadline
        self._blobs = blobs
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await self._answer(scope, Response(send, scope["method"] == "HEAD"))

    async def _answer(self, scope: Scope, response: Response) -> None:
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
                "request failed unexpectedly", path=scope["path"], error=repr(error), at=where_raised(error)
            )
            await self._refuse(request, response, OurFault("p2pd failed; its log has the reason"))
        finally:
            if self._observer is not None:
                response.seen_by(self._observer, _kind(request))

    async def _refuse(self, request: ApiRequest | None, response: Response, error: P2pdError) -> None:
        response.error = error
        if response.is_started:
            return
        answer = error_answer(error, _UNKNOWN.get(type(request), "NAME_UNKNOWN"))
        await response.whole(answer.status, {"Content-Type": _JSON, **answer.headers}, answer.body)

    async def _serve(self, request: ApiRequest, scope: Scope, response: Response) -> None:
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
                start_by = trio.current_time() + self._deadline
                self._blobs.check(request.digest)
                blob = await self._within(self._content.blob, request.repository, request.digest)
                await self._blobs.send(request, blob, headers, scope["method"], response, start_by)

    async def _within(self, call: Callable[..., Awaitable[T]], *args: object) -> T:
        with trio.move_on_after(self._deadline):
            return await call(*args)
        raise Unavailable(f"no source answered in {self._deadline:g} s; try another host, or later")


async def _send_manifest(manifest: Manifest, headers: Headers, method: str, response: Response) -> None:
    descriptor = manifest.descriptor
    media_type = descriptor.media_type
    answer = {
        "Content-Type": media_type if media_type.isascii() and media_type.isprintable() else _OCTETS,
        "Docker-Content-Digest": str(descriptor.digest),
        "ETag": f'"{descriptor.digest}"',
        "Accept-Ranges": "bytes",
    }
    answer |= _staleness(manifest)
    wanted = range_of(headers, method, answer["ETag"], len(manifest.body))
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
