"""What a reply may be: refusals as errors and back, and whether a reply fits its request."""

from __future__ import annotations

from p2pd.model.errors import (
    Denied,
    NotFound,
    P2pdError,
    PeerFault,
    PeerProtocolError,
    PeerUnavailable,
    RateLimited,
    Unavailable,
)
from p2pd.model.layout import SegmentMeta
from p2pd.model.messages import (
    Fetch,
    Fetched,
    Interest,
    Interested,
    Join,
    Joined,
    Ping,
    Pong,
    Progress,
    Query,
    QueryReply,
    Read,
    ReadReply,
    Recall,
    Recalled,
    Refused,
    Reply,
    Request,
    Resolve,
    Resolved,
    UseQuery,
    UseReply,
    Want,
    WantReply,
)
from p2pd.model.reference import Digest

__all__ = ["REASON_LIMIT", "check_reply", "error_of", "one_line", "refusal_of"]

REASON_LIMIT = 300
"""Most characters of a refusal's reason that are sent or taken."""

_REPLIES: dict[type, type] = {
    Ping: Pong,
    Query: QueryReply,
    Want: WantReply,
    Join: Joined,
    Read: ReadReply,
    Fetch: Fetched,
    Resolve: Resolved,
    UseQuery: UseReply,
    Interest: Interested,
    Recall: Recalled,
}


def one_line(text: str, limit: int = REASON_LIMIT) -> str:
    """`text` without control characters, cut to `limit` characters: what a peer says goes into logs."""
    shown = "".join(char if char.isprintable() else " " for char in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def refusal_of(error: P2pdError) -> Refused:
    """The refusal that tells `error` to a peer."""
    match error:
        case NotFound():
            kind = "not-found"
        case Denied():
            kind = "denied"
        case Unavailable() | RateLimited() | PeerUnavailable():
            kind = "unavailable"
        case _:
            kind = "fault"
    return Refused(kind, one_line(str(error)))


def error_of(node_id: str, refused: Refused) -> P2pdError:
    """The error a requester raises for a refusal by `node_id`."""
    told = f"peer {node_id[:12]} refused ({refused.kind}): {refused.reason}"
    match refused.kind:
        case "not-found":
            return NotFound(told)
        case "denied":
            return Denied(told)
        case "unavailable":
            return Unavailable(told)
        case "busy":
            return PeerUnavailable(told)
        case _:
            return PeerFault(told)


def check_reply(request: Request, reply: Reply) -> None:
    """Raise PeerProtocolError unless `reply` is of the kind, digest and length that `request` asks for."""
    if not isinstance(reply, _REPLIES[type(request)]):
        raise PeerProtocolError(f"{type(request).__name__} was answered with {type(reply).__name__}")
    match request, reply:
        case Read(), ReadReply() if len(reply.data) > request.length:
            raise PeerProtocolError(f"{len(reply.data)} bytes came where {request.length} were asked for")
        case Want(progress=asked), WantReply(progress=told) if told is not None and _blob_of(
            told
        ) != _blob_of(asked):
            raise PeerProtocolError(f"progress on {told.digest} came where {asked.digest} was wanted")
        case Join(), Joined(piece_hashes=hashes) if (
            hashes is not None
            and not SegmentMeta(request.digest, request.size, request.index, hashes).is_consistent
        ):
            raise PeerProtocolError(f"{len(hashes)} bytes of hashes do not fit segment {request.index}")


def _blob_of(progress: Progress) -> tuple[Digest, int]:
    return progress.digest, progress.size
