"""The codec: every message there and back, and everything that is not one refused the same way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack  # type: ignore[import-untyped]  # ships no types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pd.model.content import Descriptor
from p2pd.model.errors import PeerProtocolError
from p2pd.model.layout import FINGERPRINT_BYTES, SHA1_BYTES, Layout
from p2pd.model.listing import ListingKey
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
from p2pd.wire.codec import Envelope, IncompatibleVersion, decode, encode
from p2pd.wire.frames import FRAME_LIMIT

digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(raw.hex()))
sizes = st.integers(1, 2**38)
numbers = st.integers(0, 2**53 - 1)
repositories = st.sampled_from(
    [Repository("docker.io", "library/alpine"), Repository("r.example:5000", "a/b-c/d__e")]
)
tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True).map(Tag)
ports = st.integers(1, 65535)
lines = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=200)


@st.composite
def progresses(draw: st.DrawFn) -> Progress:
    size = draw(sizes)
    count = Layout(size).stripe_count
    length = (count + 7) // 8
    full = (1 << count) - 1
    seed = draw(st.integers(0, 2**64 - 1))
    have, claimed = ((seed * odd & full).to_bytes(length, "little") for odd in (3**80, 3**81))
    wan = draw(st.sampled_from(["seeder", "origin", "none"]))
    return Progress(draw(digests), size, have, claimed, wan, draw(st.booleans()), draw(st.booleans()))


@st.composite
def deltas(draw: st.DrawFn) -> ProgressDelta:
    size = draw(sizes)
    count = Layout(size).stripe_count

    def run() -> tuple[int, bytes]:
        first = draw(st.integers(0, count - 1))
        bits = draw(st.integers(0, 2 ** min(64, count - first) - 1))
        return first, bits.to_bytes(8, "little").rstrip(b"\x00")

    way = draw(st.sampled_from(["seeder", "origin", "none"]))
    return ProgressDelta(draw(digests), size, *run(), *run(), way, draw(st.booleans()))


@st.composite
def joins(draw: st.DrawFn) -> Join:
    size = draw(sizes)
    index = draw(st.integers(0, Layout(size).segment_count - 1))
    fingerprint = draw(st.binary(max_size=FINGERPRINT_BYTES))
    return Join(draw(digests), size, index, draw(st.booleans()), fingerprint)


@st.composite
def segments(draw: st.DrawFn) -> SegmentReady:
    join = draw(joins())
    pieces = Layout(join.size).segment(join.index).piece_count
    return SegmentReady(join.digest, join.size, join.index, bytes(SHA1_BYTES * pieces))


descriptors = st.builds(Descriptor, digests, numbers, st.just("application/vnd.oci.image.manifest.v1+json"))
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Hello,
        st.from_regex(r"[0-9a-f]{16,64}", fullmatch=True),
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True),
        ports,
        ports,
        numbers,
    ),
    st.just(Ping()),
    st.just(Pong()),
    st.just(UseQuery()),
    st.builds(UseReply, st.builds(LinkUse, st.booleans(), st.booleans(), st.booleans())),
    st.builds(Refused, st.sampled_from(["not-found", "busy", "fault"]), lines),
    progresses(),
    st.lists(deltas(), max_size=DELTAS_LIMIT).map(lambda some: ProgressBatch(tuple(some))),
    st.builds(Query, digests),
    st.builds(QueryReply, st.none() | numbers, st.none() | numbers),
    st.builds(Want, progresses()),
    st.builds(WantReply, st.booleans(), st.none() | progresses()),
    joins(),
    st.builds(Wanted, digests),
    st.builds(Interest, digests),
    st.lists(st.from_regex(r"[0-9a-f]{16,64}", fullmatch=True), max_size=INTERESTED_LIMIT).map(
        lambda ids: Interested(tuple(ids))
    ),
    st.builds(
        Joined, st.booleans(), st.none() | st.integers(1, 64).map(lambda n: b"\x07" * (SHA1_BYTES * n))
    ),
    segments(),
    st.builds(Read, digests, numbers, st.integers(1, READ_LIMIT)),
    st.builds(ReadReply, st.binary(max_size=4096)),
    st.builds(Fetch, repositories, digests, st.booleans()),
    st.builds(Fetched, numbers),
    st.builds(Resolve, repositories, tags, st.booleans()),
    st.builds(Resolved, st.none() | descriptors, st.floats(0, 1e9)),
    st.builds(ListingKey.tags, repositories, st.just("n=3&last=a")).map(Recall),
    st.builds(ListingKey.referrers, repositories, digests).map(Recall),
    st.builds(Recalled, st.none() | st.binary(max_size=4096), st.floats(0, 1e9)),
)


def array_of(message: Message, correlation: int = 1) -> list[Any]:
    items: list[Any] = msgpack.unpackb(encode(message, correlation)[4:])
    return items


def refused(items: object) -> str:
    with pytest.raises(PeerProtocolError) as caught:
        decode(msgpack.packb(items))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(deadline=None)
@given(messages, st.integers(0, 2**53 - 1))
def test_every_message_there_and_back(message: Message, correlation: int) -> None:
    envelope = decode(encode(message, correlation)[4:])
    assert (envelope.message, envelope.correlation) == (message, correlation)
    kinds = [envelope.is_request, envelope.is_reply, envelope.is_notice]
    assert kinds.count(True) == (0 if isinstance(message, Hello) else 1)


@settings(deadline=None)
@given(messages)
def test_what_a_later_release_appends_is_ignored(message: Message) -> None:
    items = [*array_of(message), "more", [1, None, b"x"]]
    assert decode(msgpack.packb(items)).message == message


@settings(deadline=None)
@given(messages, st.data())
def test_cut_anywhere_it_is_refused(message: Message, data: st.DataObject) -> None:
    frame = encode(message)[4:]
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(PeerProtocolError):
        decode(frame[:cut])
    with pytest.raises(PeerProtocolError):
        decode(frame + b"\x00")


@settings(deadline=None)
@given(messages)
def test_with_a_field_less_it_is_refused(message: Message) -> None:
    later = {Join: 2, Joined: 1, Progress: 1}
    sent_ever_since = -1 - later.get(type(message), 0)
    assert "too few" in refused(array_of(message)[:sent_ever_since])


def test_an_older_node_joins_without_saying_what_it_knows() -> None:
    join = Join(DIGEST, MIB, 0, knows_hashes=True, fingerprint=b"x")
    assert decode(msgpack.packb(array_of(join)[:-1])).message == Join(DIGEST, MIB, 0, knows_hashes=True)
    assert decode(msgpack.packb(array_of(join)[:-2])).message == Join(DIGEST, MIB, 0)


def test_an_older_node_does_not_confirm_hashes() -> None:
    joined = Joined(True, None, is_same=True)
    assert decode(msgpack.packb(array_of(joined)[:-1])).message == Joined(True, None)


def test_an_older_node_does_not_say_that_it_waits() -> None:
    progress = Progress(DIGEST, MIB, b"\x00", b"\x01", "seeder", waits=True)
    older = msgpack.packb(array_of(progress)[:-1])
    assert decode(older).message == Progress(DIGEST, MIB, b"\x00", b"\x01", "seeder")
    items = array_of(ProgressBatch((replace(DELTA, waits=True),)))
    del items[3][0][7]
    assert decode(msgpack.packb(items)).message == ProgressBatch((DELTA,))


@settings(deadline=None)
@given(messages, st.data())
def test_one_byte_changed_is_a_message_or_refused(message: Message, data: st.DataObject) -> None:
    frame = bytearray(encode(message)[4:])
    frame[data.draw(st.integers(0, min(len(frame), 200) - 1))] = data.draw(st.integers(0, 255))
    decoded_or_refused(bytes(frame))


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.one_of(st.integers(0, 0x80), json_like), st.lists(json_like, max_size=7))
def test_fields_of_any_type_and_value(number: object, fields: list[object]) -> None:
    decoded_or_refused(msgpack.packb([1, number, 3, *fields]))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage(frame: bytes) -> None:
    decoded_or_refused(frame)


def decoded_or_refused(frame: bytes) -> None:
    try:
        envelope = decode(frame)
    except PeerProtocolError:
        return
    if envelope.message is not None:
        # Whatever was taken is something we could have said: its lines are cut and cleaned.
        assert decode(encode(envelope.message)[4:]).message == envelope.message


@pytest.mark.parametrize("depth", [17, 600, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    with pytest.raises(PeerProtocolError):
        decode(b"\x91" * depth + b"\xc0")


def test_wide_nesting_is_refused() -> None:
    with pytest.raises(PeerProtocolError):
        decode(b"\xdc\x00\x40" * 1000 + b"\x90" * 100_000)
    with pytest.raises(PeerProtocolError):
        decode(b"\x9f" + b"\x9f" * 30_000)
    with pytest.raises(PeerProtocolError):
        decode(b"\xdd\xff\xff\xff\xff")


@pytest.mark.parametrize("version", [PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1, 99])
def test_another_version_is_told_apart(version: int) -> None:
    with pytest.raises(IncompatibleVersion) as caught:
        decode(msgpack.packb([version, "whatever", 0.5]))
    assert caught.value.version == version


def test_an_unknown_type_is_kept_for_the_caller() -> None:
    assert decode(msgpack.packb([1, 0x3F, 9, "x"])) == Envelope(0x3F, 9, None)
    assert decode(msgpack.packb([1, 0x3F, 9])).is_request
    assert decode(msgpack.packb([1, 0x6F, 9])).is_reply
    assert decode(msgpack.packb([1, 0x7F, 0])).is_notice


DIGEST = Digest("ab" * 32)
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("message", "index", "value"),
    [
        (Hello("a" * 16, "s", 1, 2), 3, "A" * 16),
        (Hello("a" * 16, "s", 1, 2), 3, "a" * 15),
        (Hello("a" * 16, "s", 1, 2), 3, "a" * 65),
        (Hello("a" * 16, "s", 1, 2), 3, "a" * 16 + "\n"),
        (Hello("a" * 16, "s", 1, 2), 4, ""),
        (Hello("a" * 16, "s", 1, 2), 4, "x" * 64),
        (Hello("a" * 16, "s", 1, 2), 4, "two\nlines"),
        (Hello("a" * 16, "s", 1, 2), 5, 0),
        (Hello("a" * 16, "s", 1, 2), 5, 65536),
        (Hello("a" * 16, "s", 1, 2), 6, True),
        (Query(DIGEST), 3, b"x" * 31),
        (Query(DIGEST), 3, b"x" * 33),
        (Query(DIGEST), 3, "x" * 32),
        (QueryReply(1, None), 3, -1),
        (QueryReply(1, None), 3, 2**53),
        (QueryReply(1, None), 4, 1.5),
        (Join(DIGEST, MIB, 0), 4, 0),
        (Join(DIGEST, MIB, 0), 5, 1),
        (Join(DIGEST, MIB, 0), 6, 1),
        (Join(DIGEST, MIB, 0), 7, b"x" * 17),
        (Join(DIGEST, MIB, 0), 7, None),
        (Interested(("a" * 16,)), 3, ["A" * 16]),
        (Interested(("a" * 16,)), 3, [7]),
        (Interested(("a" * 16,)), 3, None),
        (Joined(True, None), 4, b""),
        (Joined(True, None), 4, b"x" * 21),
        (Joined(True, None), 4, b"x" * 20 * 65),
        (Joined(True, None), 5, 1),
        (SegmentReady(DIGEST, MIB, 0, b"x" * 80), 6, b"x" * 60),
        (Read(DIGEST, 0, 1), 4, -1),
        (Read(DIGEST, 0, 1), 5, 0),
        (Read(DIGEST, 0, 1), 5, READ_LIMIT + 1),
        (Fetch(Repository("r.example", "a"), DIGEST, True), 3, "not a host"),
        (Fetch(Repository("r.example", "a"), DIGEST, True), 4, "../etc"),
        (Fetch(Repository("r.example", "a"), DIGEST, True), 6, 1),
        (Resolve(Repository("r.example", "a"), Tag("t"), True), 5, "a/b"),
        (Resolved(None, 0.0), 4, float("nan")),
        (Resolved(None, 0.0), 4, float("inf")),
        (Resolved(None, 0.0), 4, -1.0),
        (Resolved(None, 0.0), 3, [DIGEST.raw, 1, "no\nline"]),
        (Recall(ListingKey.tags(Repository("r.example", "a"), "")), 5, "cats"),
        (Recall(ListingKey.tags(Repository("r.example", "a"), "")), 6, "no\nline"),
        (Recall(ListingKey.tags(Repository("r.example", "a"), "")), 6, "x" * 513),
        (Recalled(None, 0.0), 3, "text"),
        (Recalled(None, 0.0), 4, float("nan")),
        (Progress(DIGEST, 9 * MIB, b"\x00\x00", b"\x00\x00", "none"), 4, 0),
        (Progress(DIGEST, 9 * MIB, b"\x00\x00", b"\x00\x00", "none"), 4, 2**52),
        (Progress(DIGEST, 9 * MIB, b"\x00\x00", b"\x00\x00", "none"), 5, b"\x00"),
        (Progress(DIGEST, 9 * MIB, b"\x00\x00", b"\x00\x00", "none"), 6, b"\x00\x02"),
        (Progress(DIGEST, 9 * MIB, b"\x00\x00", b"\x00\x00", "none"), 7, "moon"),
        (Ping(), 2, -1),
        (Ping(), 2, None),
        (Ping(), 0, "1"),
        (Ping(), 0, 0),
    ],
)
def test_a_field_out_of_range_is_refused(message: Message, index: int, value: object) -> None:
    items = array_of(message)
    assert decode(msgpack.packb(items)).message == message
    items[index] = value
    refused(items)


DELTA = ProgressDelta(DIGEST, 9 * MIB, 2, b"\x05", 8, b"\x01", "none")


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, b"x" * 31),
        (0, "x" * 32),
        (1, 0),
        (1, 2**53),
        (1, True),
        (2, -1),
        (2, 9),
        (2, 7),
        (2, 2**52),
        (3, None),
        (3, b"\x00\x01"),
        (4, 1.0),
        (5, b"\x02"),
        (6, "moon"),
        (6, []),
        (7, 1),
        (7, None),
    ],
)
def test_a_word_on_progress_out_of_range_is_refused(index: int, value: object) -> None:
    items = array_of(ProgressBatch((DELTA,)))
    assert decode(msgpack.packb(items)).message == ProgressBatch((DELTA,))
    items[3][0][index] = value
    refused(items)


def test_words_on_progress_grow_like_messages() -> None:
    items = array_of(ProgressBatch((DELTA,)))
    items[3][0].append("new")
    assert decode(msgpack.packb(items)).message == ProgressBatch((DELTA,))
    many = decode(msgpack.packb([*items[:3], [items[3][0]] * (DELTAS_LIMIT + 1)])).message
    assert many == ProgressBatch((DELTA,) * DELTAS_LIMIT)
    for wrong in (7, [7], [items[3][0][:6]], ["1234567"]):
        refused([*items[:3], wrong])


def test_what_a_peer_says_is_cut_to_one_short_line() -> None:
    taken = decode(msgpack.packb([1, 0x40, 1, "x" * 900, "a\n\x1b[31m" + "b" * 900])).message
    assert isinstance(taken, Refused)
    assert len(taken.kind) == 32
    assert len(taken.reason) == 300
    assert taken.reason.startswith("a  [31mb")
    long = encode(Refused("fault", "c" * 5000))
    assert len(long) < 400


def test_the_largest_messages_fit() -> None:
    assert len(encode(ReadReply(bytes(READ_LIMIT)))) < FRAME_LIMIT
    size = 2**40
    bits = b"\xff" * (Layout(size).stripe_count // 8)
    frame = encode(WantReply(True, Progress(DIGEST, size, bits, bits, "none")))
    assert decode(frame[4:]).message == WantReply(True, Progress(DIGEST, size, bits, bits, "none"))
    with pytest.raises(ValueError, match="over the frame limit"):
        encode(ReadReply(bytes(FRAME_LIMIT)))
