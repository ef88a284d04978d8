"""The messages of p2pd.model.messages on the wire.

A frame is a 4-byte big-endian length and that many bytes of one msgpack array:

    [version, type, correlation, field, …]

`correlation` ties a reply to its request; it is 0 in notices and Hello. Fields are positional.
Elements after the known fields are ignored, so that a later release of the same version may
append some (maps excepted); a change that an old node cannot ignore needs a new version. Nested values are
arrays under the same rule.

Everything in a frame is checked before it becomes a value: a decoded message can be used as it
is. What does not pass is a PeerProtocolError and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack  # type: ignore[import-untyped]  # ships no types

from p2pd.model.content import Descriptor, is_media_type
from p2pd.model.errors import InvalidReference, PeerProtocolError
from p2pd.model.layout import FINGERPRINT_BYTES, SHA1_BYTES, Layout, SegmentMeta
from p2pd.model.listing import ListingKey, ListingKind
from p2pd.model.messages import (
    DELTAS_LIMIT,
    INTERESTED_LIMIT,
    PROTOCOL_VERSION,
    READ_LIMIT,
    Fetch,
    Fetched,
    Hello,
    Interest,
    Interested,
    Join,
    Joined,
    Message,
    Ping,
    Pong,
    Progress,
    ProgressBatch,
    ProgressDelta,
    Query,
    QueryReply,
    Read,
    ReadReply,
    Recall,
    Recalled,
    Refused,
    Resolve,
    Resolved,
    SegmentReady,
    UseQuery,
    UseReply,
    Want,
    Wanted,
    WantReply,
)
from p2pd.model.rate import LinkUse
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.wire.exchange import one_line
from p2pd.wire.fields import check_node_id, check_port, check_site
from p2pd.wire.frames import FRAME_LIMIT
from p2pd.wire.packed import INT_LIMIT, Fields, digest_of, unpack

__all__ = [
    "Envelope",
    "IncompatibleVersion",
    "decode",
    "encode",
]

_WAN = ("seeder", "origin", "none")
_HASHES_LIMIT = 64 * SHA1_BYTES

# Types below 0x40 are requests (Hello aside), below 0x70 replies, then notices: a node can tell
# what to do with one it does not know.
_REPLIES_FROM = 0x40
_NOTICES_FROM = 0x70


class IncompatibleVersion(PeerProtocolError):
    """A well-formed frame of a protocol version that this node does not speak."""

    def __init__(self, version: int) -> None:
        super().__init__(f"peer speaks protocol version {version}, this node {PROTOCOL_VERSION}")
        self.version = version


@dataclass(frozen=True, slots=True)
class Envelope:
    """A decoded frame. `message` is None when its type is not known here."""

    type: int
    correlation: int
    message: Message | None

    @property
    def is_request(self) -> bool:
        return self.type < _REPLIES_FROM and not isinstance(self.message, Hello)

    @property
    def is_notice(self) -> bool:
        return self.type >= _NOTICES_FROM

    @property
    def is_reply(self) -> bool:
        return _REPLIES_FROM <= self.type < _NOTICES_FROM


def encode(message: Message, correlation: int = 0) -> bytes:
    """The whole frame of a message, length included. Too large a message is the caller's ValueError."""
    number, fields = _ENCODERS[type(message)]
    frame: bytes = msgpack.packb([PROTOCOL_VERSION, number, correlation, *fields(message)])
    if len(frame) > FRAME_LIMIT:
        raise ValueError(f"{type(message).__name__} of {len(frame)} bytes is over the frame limit")
    return len(frame).to_bytes(4, "big") + frame


def decode(frame: bytes) -> Envelope:
    """Read a frame (without its length). Raises PeerProtocolError, IncompatibleVersion among them."""
    fields = Fields(unpack(frame))
    version = fields.integer()
    if version != PROTOCOL_VERSION:
        raise IncompatibleVersion(version)
    number, correlation = fields.integer(), fields.integer()
    known = _DECODERS.get(number)
    try:
        message = known(fields) if known is not None else None
    except InvalidReference as error:
        raise PeerProtocolError(f"peer sent a malformed name: {error}") from error
    return Envelope(number, correlation, message)


def _hello(f: Fields) -> Hello:
    node_id, site = check_node_id(f.text()), check_site(f.text())
    return Hello(node_id, site, check_port(f.integer()), check_port(f.integer()), f.integer())


def _refused(f: Fields) -> Refused:
    return Refused(one_line(f.text(), 32), one_line(f.text()))


def _progress_fields(p: Progress) -> list[object]:
    return [p.digest.raw, p.size, p.have, p.claimed, p.wan, p.done, p.waits]


def _progress(f: Fields) -> Progress:
    digest, size = f.digest(), f.integer(1)
    stripes = Layout(size).stripe_count
    have, claimed, wan = _bits(f, stripes), _bits(f, stripes), f.text()
    if wan not in _WAN:
        raise PeerProtocolError(f"way to the WAN {one_line(wan, 32)!r} is not one of {', '.join(_WAN)}")
    return Progress(digest, size, have, claimed, wan, f.boolean(), f.later_boolean())


def _bits(f: Fields, count: int) -> bytes:
    field = f.binary(READ_LIMIT)
    if len(field) != (count + 7) // 8 or (count % 8 and field[-1] >> count % 8):
        raise PeerProtocolError(f"bit field of {len(field)} bytes does not fit {count} stripes")
    return field


def _batch_fields(m: ProgressBatch) -> list[object]:
    return [[_delta_fields(delta) for delta in m.deltas]]


def _delta_fields(d: ProgressDelta) -> list[object]:
    return [d.digest.raw, d.size, d.gained_from, d.gained, d.flying_from, d.flying, d.wan, d.waits]


def _batch(f: Fields) -> ProgressBatch:
    # The most frequent message: checked in one go.
    deltas = []
    for item in f.array()[:DELTAS_LIMIT]:
        try:
            raw, size, gained_from, gained, flying_from, flying, wan, *later = item
        except (TypeError, ValueError):
            raise PeerProtocolError("what is said of a blob's progress is not an array of seven") from None
        if type(raw) is not bytes or len(raw) != 32 or type(size) is not int or not 0 < size < INT_LIMIT:
            raise PeerProtocolError("what is said of a blob's progress does not begin with digest and size")
        stripes = Layout(size).stripe_count
        _check_run(gained_from, gained, stripes)
        _check_run(flying_from, flying, stripes)
        if wan not in _WAN:
            raise PeerProtocolError(f"way to the WAN is not one of {', '.join(_WAN)}")
        waits = later[0] if later else False
        if type(waits) is not bool:
            raise PeerProtocolError("what is said of a blob's progress does not tell whether it waits")
        gains, flies = (gained_from, gained), (flying_from, flying)
        deltas.append(ProgressDelta(digest_of(raw), size, *gains, *flies, wan, waits))
    return ProgressBatch(tuple(deltas))


def _check_run(first: object, field: object, stripes: int) -> None:
    if type(first) is not int or type(field) is not bytes:
        raise PeerProtocolError("a run of stripes is not a number and a bit field")
    if not 0 <= first < stripes or first + int.from_bytes(field, "little").bit_length() > stripes:
        raise PeerProtocolError(f"bit field of {len(field)} bytes from {first} is beyond {stripes} stripes")


def _want_reply(f: Fields) -> WantReply:
    return WantReply(f.boolean(), f.optional(lambda one: _progress(one.nested())))


def _interested(f: Fields) -> Interested:
    nodes = f.array()[:INTERESTED_LIMIT]
    if not all(type(node) is str for node in nodes):
        raise PeerProtocolError("a node id is not text")
    return Interested(tuple(check_node_id(node) for node in nodes))


def _segment(f: Fields) -> tuple[Digest, int, int]:
    digest, size = f.digest(), f.integer(1)
    return digest, size, f.integer(0, Layout(size).segment_count - 1)


def _join(f: Fields) -> Join:
    return Join(*_segment(f), f.later_boolean(), f.later_binary(FINGERPRINT_BYTES))


def _joined(f: Fields) -> Joined:
    loaded, hashes = f.boolean(), f.optional(lambda one: one.binary(_HASHES_LIMIT))
    if hashes is not None and (not hashes or len(hashes) % SHA1_BYTES):
        raise PeerProtocolError(f"{len(hashes)} bytes are not a run of piece hashes")
    return Joined(loaded, hashes, f.later_boolean())


def _segment_ready(f: Fields) -> SegmentReady:
    digest, size, index = _segment(f)
    hashes = f.binary(_HASHES_LIMIT)
    if not SegmentMeta(digest, size, index, hashes).is_consistent:
        raise PeerProtocolError(f"{len(hashes)} bytes of hashes do not fit segment {index}")
    return SegmentReady(digest, size, index, hashes)


def _read(f: Fields) -> Read:
    return Read(f.digest(), f.integer(), f.integer(1, READ_LIMIT))


def _repository(f: Fields) -> Repository:
    return Repository.parse(f.text(), f.text())


def _descriptor(f: Fields) -> Descriptor:
    digest, size, media_type = f.digest(), f.integer(), f.text()
    if not is_media_type(media_type):
        raise PeerProtocolError("media type is not 1 to 255 printable ASCII characters")
    return Descriptor(digest, size, media_type)


def _resolved_fields(m: Resolved) -> list[object]:
    d = m.descriptor
    return [None if d is None else [d.digest.raw, d.size, d.media_type], float(m.age)]


def _resolved(f: Fields) -> Resolved:
    return Resolved(f.optional(lambda one: _descriptor(one.nested())), f.seconds())


def _recall_fields(m: Recall) -> list[object]:
    key = m.key
    return [key.repository.registry, key.repository.name, key.kind.value, key.argument]


def _recall(f: Fields) -> Recall:
    repository, kind, argument = _repository(f), f.text(), f.text()
    if kind not in {each.value for each in ListingKind}:
        raise PeerProtocolError(f"{one_line(kind, 32)!r} is no kind of list")
    key = ListingKey(repository, ListingKind(kind), argument)
    if not key.is_plain:
        raise PeerProtocolError("what a list is asked by is not short, printable ASCII")
    return Recall(key)


def _recalled(f: Fields) -> Recalled:
    return Recalled(f.optional(lambda one: one.binary(READ_LIMIT)), f.seconds())


_ENCODERS: dict[type, tuple[int, Callable[[Any], list[object]]]] = {
    Hello: (0x01, lambda m: [m.node_id, m.site, m.swarm_port, m.control_port, m.instance]),
    Ping: (0x10, lambda m: []),
    Query: (0x11, lambda m: [m.digest.raw]),
    Want: (0x12, lambda m: [_progress_fields(m.progress)]),
    Join: (0x13, lambda m: [m.digest.raw, m.size, m.index, m.knows_hashes, m.fingerprint]),
    Read: (0x14, lambda m: [m.digest.raw, m.offset, m.length]),
    Fetch: (0x15, lambda m: [m.repository.registry, m.repository.name, m.digest.raw, m.is_manifest]),
    Resolve: (0x16, lambda m: [m.repository.registry, m.repository.name, m.tag.name, m.upstream]),
    UseQuery: (0x17, lambda m: []),
    Interest: (0x18, lambda m: [m.digest.raw]),
    Recall: (0x19, _recall_fields),
    Refused: (0x40, lambda m: [one_line(m.kind, 32), one_line(m.reason)]),
    Pong: (0x41, lambda m: []),
    QueryReply: (0x42, lambda m: [m.held_size, m.wanted_size]),
    WantReply: (0x43, lambda m: [m.held, None if m.progress is None else _progress_fields(m.progress)]),
    Joined: (0x44, lambda m: [m.loaded, m.piece_hashes, m.is_same]),
    ReadReply: (0x45, lambda m: [m.data]),
    Fetched: (0x46, lambda m: [m.size]),
    Resolved: (0x47, _resolved_fields),
    UseReply: (0x48, lambda m: [m.use.wan, m.use.urgent, m.use.swarm]),
    Interested: (0x49, lambda m: [list(m.nodes)]),
    Recalled: (0x4A, lambda m: [m.body, float(m.age)]),
    Progress: (0x70, _progress_fields),
    ProgressBatch: (0x72, _batch_fields),
    Wanted: (0x73, lambda m: [m.digest.raw]),
    SegmentReady: (0x71, lambda m: [m.digest.raw, m.size, m.index, m.piece_hashes]),
}

_DECODERS: dict[int, Callable[[Fields], Message]] = {
    0x01: _hello,
    0x10: lambda f: Ping(),
    0x11: lambda f: Query(f.digest()),
    0x12: lambda f: Want(_progress(f.nested())),
    0x13: _join,
    0x14: _read,
    0x15: lambda f: Fetch(_repository(f), f.digest(), f.boolean()),
    0x16: lambda f: Resolve(_repository(f), Tag.parse(f.text()), f.boolean()),
    0x17: lambda f: UseQuery(),
    0x18: lambda f: Interest(f.digest()),
    0x19: _recall,
    0x40: _refused,
    0x41: lambda f: Pong(),
    0x42: lambda f: QueryReply(f.optional(Fields.integer), f.optional(Fields.integer)),
    0x43: _want_reply,
    0x44: _joined,
    0x45: lambda f: ReadReply(f.binary(READ_LIMIT)),
    0x46: lambda f: Fetched(f.integer()),
    0x47: _resolved,
    0x48: lambda f: UseReply(LinkUse(f.boolean(), f.boolean(), f.boolean())),
    0x49: _interested,
    0x4A: _recalled,
    0x70: _progress,
    0x71: _segment_ready,
    0x72: _batch,
    0x73: lambda f: Wanted(f.digest()),
}
