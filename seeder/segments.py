"""The seeder's own endpoint: swarm metadata.

GET /p2pd/v1/segments/<repository name>/<digest>/<index>?ns=<registry>&size=<bytes of the blob>
answers with the SHA-1 of each piece, concatenated (application/octet-stream). While the bytes are
still on their way the question is held back, at most `wait` seconds, then answered 503.

With &wait=<seconds> it is held back no longer than that, and then answered 202: by wait=0 a node learns at
once that this seeder is still pulling the blob. The headers of a range would tell it no sooner than the bytes
come, or the time for an answer is up: until then the answer may become an error.
"""

from __future__ import annotations

import re

import structlog
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from p2pd.io.seeder_client import SEGMENT_WAIT
from p2pd.model.content import Holding
from p2pd.model.errors import InvalidReference, OriginFault, P2pdError, Unavailable
from p2pd.model.layout import SegmentMeta
from p2pd.model.reference import Digest, Repository
from p2pd.ports.observer import RequestObserver
from p2pd.wire.registry_api import Upstreams
from p2pd.wire.registry_errors import ApiError, error_answer
from p2pd.wire.response import HOLDING_HEADER
from seeder.content import SeederContent

__all__ = ["segment_route"]

log = structlog.get_logger()

_PATH = re.compile(r"(.{1,255})/(sha256:[^/]{1,80})/([0-9]{1,9})")
_SIZE = re.compile(r"[0-9]{1,16}")
_SECONDS = re.compile(r"[0-9]{1,3}")


def segment_route(
    content: SeederContent, upstreams: Upstreams, observer: RequestObserver, wait: float = SEGMENT_WAIT
) -> Route:
    """The route, to be given to `build_app` as an extra one."""

    async def segment(request: Request) -> Response:
        began = trio.current_time()

        def seen(code: int, error: P2pdError | None = None) -> None:
            observer.answered("segment", code, trio.current_time() - began, error)

        try:
            repository, digest, size, index = _read(request, upstreams)
            asked = _wait_asked(request)
            patience = wait if asked is None or content.has_segment(digest, index) else min(wait, asked)
            # Without any patience, too, this begins the transfer, and tells why that cannot be.
            with trio.move_on_after(patience):
                meta = await content.segment_meta(repository, digest, size, index)
                seen(200)
                return _hashes(meta, content.holding(digest))
            if asked is not None:
                seen(202)
                return Response(status_code=202, headers={HOLDING_HEADER: Holding.PULLING.value})
            raise Unavailable(f"segment {index} of {digest} is still on its way from the origin: ask again")
        except P2pdError as error:
            if not isinstance(error, OriginFault | InvalidReference | ApiError):
                log.warning("segment.failed", path=request.url.path, reason=str(error))
            answer = error_answer(error, "BLOB_UNKNOWN")
            seen(answer.status, error)
            headers = {"Content-Type": "application/json", **answer.headers}
            return Response(answer.body, answer.status, headers)

    return Route("/p2pd/v1/segments/{rest:path}", segment, methods=["GET"])


def _hashes(meta: SegmentMeta, holding: Holding | None) -> Response:
    told = {} if holding is None else {HOLDING_HEADER: holding.value}
    return Response(meta.piece_hashes, headers=told, media_type="application/octet-stream")


def _wait_asked(request: Request) -> float | None:
    wait = request.query_params.get("wait", "")
    return float(wait) if _SECONDS.fullmatch(wait) else None


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
