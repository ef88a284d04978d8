"""The seeder's own endpoint: swarm metadata.

GET /p2pd/v1/segments/<repository name>/<digest>/<index>?ns=<registry>&size=<bytes of the blob>
answers with the SHA-1 of each piece, concatenated (application/octet-stream). While the bytes are
still on their way the question is held back, at most `wait` seconds, then answered 503.
"""

from __future__ import annotations

import re

import structlog
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from p2pd.model.errors import InvalidReference, OriginFault, P2pdError, Unavailable
from p2pd.model.reference import Digest, Repository
from p2pd.ports.observer import RequestObserver
from p2pd.wire.registry_api import Upstreams
from p2pd.wire.registry_errors import ApiError, error_answer
from seeder.content import SeederContent

__all__ = ["segment_route"]

log = structlog.get_logger()

_PATH = re.compile(r"(.{1,255})/(sha256:[^/]{1,80})/([0-9]{1,9})")
_SIZE = re.compile(r"[0-9]{1,16}")


def segment_route(
    content: SeederContent, upstreams: Upstreams, observer: RequestObserver, wait: float = 20.0
) -> Route:
    """The route, to be given to `build_app` as an extra one."""

    async def segment(request: Request) -> Response:
        began = trio.current_time()

        def seen(code: int, error: P2pdError | None = None) -> None:
            observer.answered("segment", code, trio.current_time() - began, error)

        try:
            repository, digest, size, index = _read(request, upstreams)
            with trio.move_on_after(wait):
                meta = await content.segment_meta(repository, digest, size, index)
                seen(200)
                return Response(meta.piece_hashes, media_type="application/octet-stream")
            raise Unavailable(f"segment {index} of {digest} is still on its way from the origin: ask again")
        except P2pdError as error:
            if not isinstance(error, OriginFault | InvalidReference | ApiError):
                log.warning("segment.failed", path=request.url.path, reason=str(error))
            answer = error_answer(error, "BLOB_UNKNOWN")
            seen(answer.status, error)
            headers = {"Content-Type": "application/json", **answer.headers}
            return Response(answer.body, answer.status, headers)

    return Route("/p2pd/v1/segments/{rest:path}", segment, methods=["GET"])


def _read(request: Request, upstreams: Upstreams) -> tuple[Repository, Digest, int, int]:
    match = _PATH.fullmatch(request.path_params["rest"])
    size = request.query_params.get("size", "")
    if match is None or not _SIZE.fullmatch(size):
        raise InvalidReference("a segment is asked for by <repository>/<digest>/<index>?ns=…&size=<bytes>")
    registry = upstreams.find(request.query_params.get("ns", ""))
    if registry is None:
        raise ApiError(404, "NAME_UNKNOWN", "ns names no registry that this seeder may ask")
    repository = Repository.parse(registry, match.group(1))
    return repository, Digest.parse(match.group(2)), int(size), int(match.group(3))
