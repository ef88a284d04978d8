"""Sizes of what nodes say: control messages by the real codec, HTTP by what the seeder was seen to send."""

from __future__ import annotations

from p2pd.model.layout import FINGERPRINT_BYTES, SHA1_BYTES, Layout
from p2pd.model.messages import (
    INTERESTED_LIMIT,
    Interest,
    Interested,
    Join,
    Joined,
    Ping,
    Pong,
    Progress,
    ProgressBatch,
    ProgressDelta,
    Want,
    Wanted,
    WantReply,
)
from p2pd.model.reference import Digest
from p2pd.wire.codec import encode

__all__ = ["Bytes"]

_CORRELATION = 1000
_RANGE_HEADERS = 400
_METADATA_HEADERS = 250


class Bytes:
    """Of one blob. Frames with their length, without TCP/IP; answers over the WAN without their body."""

    range_headers = _RANGE_HEADERS

    def __init__(self, digest: Digest, layout: Layout) -> None:
        bits = bytes(-(-layout.stripe_count // 8))
        progress = Progress(digest, layout.size, bits, bits, "seeder")
        hashes = bytes(SHA1_BYTES * layout.segment(0).piece_count)
        self.want = len(encode(Want(progress), _CORRELATION))
        self.want_reply = len(encode(WantReply(False, progress), _CORRELATION))
        self.done = len(encode(progress))
        self.wanted = len(encode(Wanted(digest)))
        self.interest = len(encode(Interest(digest), _CORRELATION)) + len(
            encode(Interested(("0" * 32,) * INTERESTED_LIMIT), _CORRELATION)
        )
        join = len(encode(Join(digest, layout.size, 0, knows_hashes=True), _CORRELATION))
        self.join_and_reply = join + len(encode(Joined(True, None), _CORRELATION))
        self.hashes_and_reply = join + len(encode(Joined(True, hashes), _CORRELATION))
        confirm = Join(digest, layout.size, 0, fingerprint=bytes(FINGERPRINT_BYTES))
        self.confirmed_and_reply = len(encode(confirm, _CORRELATION)) + len(
            encode(Joined(True, None, is_same=True), _CORRELATION)
        )
        self.ping_and_pong = len(encode(Ping(), _CORRELATION)) + len(encode(Pong(), _CORRELATION))
        self.metadata = _METADATA_HEADERS + len(hashes)

    def of_delta(self, delta: ProgressDelta) -> int:
        """A report of one blob."""
        return len(encode(ProgressBatch((delta,))))
