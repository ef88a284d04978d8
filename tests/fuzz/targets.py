"""What is fuzzed: each reader of bytes that others, or a broken disk, can choose.

A target takes any bytes and must return: an exception that it does not expect, a property that does not
hold, more than a few seconds or much memory is a finding. `SEEDS` are where the search begins.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import trio
import xxhash

from p2pd.app.admin_http import read_order
from p2pd.app.config import NodeConfig, parse
from p2pd.app.identity import load_node_id
from p2pd.app.ledger import Ledger
from p2pd.io.auth import _read_token
from p2pd.io.credentials import DockerConfig
from p2pd.io.files import Files
from p2pd.io.listings import decode_listing, encode_listing
from p2pd.io.partial import FilePartial, open_work
from p2pd.io.pieces import ENTRY_BYTES, PieceTable, entry_of
from p2pd.io.places import Places
from p2pd.io.room import Room
from p2pd.io.runtime import _Vouched
from p2pd.io.tags import decode_record, encode_record
from p2pd.model.admin import CollectOrder, PullOrder, Traffic, VerifyOrder
from p2pd.model.content import Descriptor, Manifest, choices, filter_referrers, parts, referenced
from p2pd.model.errors import (
    ConfigError,
    InvalidReference,
    PeerProtocolError,
    Unavailable,
    UserMistake,
    WrongContent,
)
from p2pd.model.layout import Layout
from p2pd.model.listing import ListingKey, referrers_of, tags_of
from p2pd.model.messages import Resolved
from p2pd.model.platform import Platform
from p2pd.model.reference import Digest, Repository, Tag, parse_image, parse_reference
from p2pd.wire.challenge import parse_challenges
from p2pd.wire.codec import decode, encode
from p2pd.wire.frames import FRAME_LIMIT, FrameBuffer
from p2pd.wire.paging import is_by_name, link_to_next, next_query
from p2pd.wire.ranges import ByteRange, RangeNotSatisfiable, parse_range
from p2pd.wire.registry_api import BaseCheck, TagsRequest, Upstreams, parse_request
from p2pd.wire.registry_errors import ApiError, error_answer
from p2pd.wire.response import content_length, content_range, holding, retry_after
from p2pd.wire.txt import encode_txt, parse_txt
from seeder.config import SeederConfig

__all__ = ["TARGETS"]

_UPSTREAMS = Upstreams({"docker.io": "docker.io", "reg.example:5000": "reg.example:5000", "reg": "ghcr.io"})
_BARE = Upstreams({"ghcr.io": "ghcr.io"}, default="docker.io")
_REPOSITORY, _TAG = Repository("docker.io", "library/alpine"), Tag("3.20")
_ERROR_LIMIT = 2000


def registry_path(data: bytes) -> None:
    """Path and query of a request to the mirror; the first byte tells whether bare names are allowed."""
    path, _, query = data[1:].decode("latin-1").partition("?")
    upstreams = _BARE if data[:1] == b"b" else _UPSTREAMS
    try:
        request = parse_request(path, query, upstreams)
    except ApiError as error:
        answer = error_answer(error, "NAME_UNKNOWN")
        assert json.loads(answer.body)["errors"][0]["code"] == answer.code
        assert 400 <= answer.status < 500
        return
    if not isinstance(request, BaseCheck):
        assert request.repository.registry in {"docker.io", "reg.example:5000", "ghcr.io"}
    if isinstance(request, TagsRequest):
        assert request.query.isascii()


def byte_range(data: bytes) -> None:
    """A Range header; the first two bytes are the size."""
    size = int.from_bytes(data[:2], "big")
    try:
        found = parse_range(data[2:].decode("latin-1"), size)
    except RangeNotSatisfiable as error:
        _is_line(error)
        return
    if found is not None:
        assert isinstance(found, ByteRange)
        assert 0 <= found.start < found.stop <= found.size == size


def answer_headers(data: bytes) -> None:
    """Headers that a downloader believes or refuses."""
    text = data.decode("latin-1")
    wait = retry_after(text, 1.7e9)
    assert wait is None or 0.0 <= wait <= 3600.0
    length = content_length(text)
    assert length is None or 0 <= length < 10**18
    holding(text)
    cut = content_range(text)
    assert cut is None or 0 <= cut.start < cut.stop <= cut.size


def challenge(data: bytes) -> None:
    """WWW-Authenticate."""
    found = parse_challenges(data.decode("latin-1").split("\n"))
    assert sum(len(each.scheme) for each in found) <= len(data)
    assert all(name == name.lower() for each in found for name in each.params)


def control_frames(data: bytes) -> None:
    """What a peer sends: every message that is taken can be sent again, and is then the same."""
    frames = FrameBuffer(FRAME_LIMIT)
    frames.feed(data)
    try:
        while (frame := frames.next_frame()) is not None:
            _same_again(frame)
    except PeerProtocolError as error:
        _is_line(error)


def control_frame(data: bytes) -> None:
    """One frame without its length, which is easier to reach into."""
    try:
        _same_again(data)
    except PeerProtocolError as error:
        _is_line(error)


def _same_again(frame: bytes) -> None:
    found = decode(frame)
    if found.message is not None:
        assert decode(encode(found.message, found.correlation)[4:]) == found


def txt_record(data: bytes) -> None:
    try:
        record = parse_txt(data)
    except PeerProtocolError as error:
        _is_line(error)
        return
    assert parse_txt(encode_txt(record)) == record


def manifest(data: bytes) -> None:
    """A manifest, or what a registry sends in its place; the first line is its Content-Type."""
    told, _, body = data.partition(b"\n")
    taken = Manifest.verified(body, None, told.decode("latin-1") or None)
    _can_be_told(taken.descriptor)
    known = {descriptor.digest for descriptor in referenced(body)}
    assert {descriptor.digest for descriptor in parts(body)} <= known
    assert {descriptor.digest for descriptor, _ in choices(body)} <= known
    json.loads(filter_referrers(body, "application/x"))
    try:
        Manifest.verified(body, Digest("0" * 64))
    except WrongContent as error:
        _is_line(error)


def _can_be_told(descriptor: Descriptor) -> None:
    """A descriptor goes into headers, into messages to peers and to disk."""
    resolved = Resolved(descriptor, 1.0)
    assert decode(encode(resolved)[4:]).message == resolved


def piece_table(data: bytes) -> None:
    """The sidecar of a held blob. Fuzzers do not guess checksums: one is added, too."""
    for sidecar in (data, data + xxhash.xxh3_64_digest(data)):
        table = PieceTable.decode(sidecar)
        if table is None:
            continue
        assert table.encode() == sidecar
        meta = table.segment_meta(Digest("0" * 64), 0)
        assert meta is None or meta.is_consistent


def journal(data: bytes) -> None:
    """A blob in assembly after a crash; the first two bytes are where journal and content part."""
    at, size = int.from_bytes(data[:2], "big"), 1024 * 1024 + 17
    body, told = bytes(Layout(size).piece_length), data[2 + at :]
    content = (data[2 : 2 + at] + body)[:size]
    digest = Digest("0" * 64)
    with tempfile.TemporaryDirectory() as directory:
        places, files = Places(Path(directory)), Files()
        places.partials.mkdir(parents=True)
        places.partial(digest, size).write_bytes(content)
        places.journal(digest, size).write_bytes(told)
        taken, count = trio.run(_resumed, digest, size, places, files)
        left = places.journal(digest, size).read_bytes()
        assert len(left) == count * ENTRY_BYTES
        assert places.partial(digest, size).stat().st_size == taken <= len(content)
        step = Layout(size).piece_length
        pieces = [content[start : start + step] for start in range(0, taken, step)]
        assert left == b"".join(map(entry_of, pieces))


async def _resumed(digest: Digest, size: int, places: Places, files: Files) -> tuple[int, int]:
    """Where an assembly goes on, and after how many pieces."""
    work = open_work(digest, size, places, files)
    partial = FilePartial(work, places, files, Room(), lambda *_: None, lambda _: None)
    while await partial.resume():
        pass
    return partial.frontier, -(-partial.frontier // Layout(size).piece_length)


def tag_record(data: bytes) -> None:
    record = decode_record(data, _REPOSITORY, _TAG)
    if record is not None:
        assert decode_record(encode_record(_REPOSITORY, _TAG, record), _REPOSITORY, _TAG) == record
        _can_be_told(record.descriptor)


def listing(data: bytes) -> None:
    """A list from a registry or a peer, and from the store; the first byte is the page's length."""
    told = data[1:]
    tags = tags_of(told)
    link = link_to_next("/v2/library/alpine/tags/list", data[0] if data else 0, tags or [], "docker.io")
    assert link is None or (link.isascii() and link.isprintable())
    if referrers_of(told) is not None:
        json.loads(filter_referrers(told, "application/x"))
    for kind in (ListingKey.tags(_REPOSITORY, ""), ListingKey.referrers(_REPOSITORY, Digest("0" * 64))):
        record = decode_listing(data, kind)
        if record is not None:
            assert decode_listing(encode_listing(kind, record), kind) == record


def next_page(data: bytes) -> None:
    """The target of a registry's Link."""
    query = next_query(data.decode("latin-1"))
    if query is not None:
        is_by_name(query)
        httpx.URL(f"https://reg.example/v2/a/tags/list?{query}")


def token_answer(data: bytes) -> None:
    """What a token server says: a token that can be sent as a header, for a time that ends."""
    try:
        token, lifetime = _read_token(data, "auth.example")
    except Unavailable as error:
        _is_line(error)
        return
    httpx.Headers({"Authorization": f"Bearer {token}"})
    assert 0 < lifetime <= 86400


def runtime_mark(data: bytes) -> None:
    """What is remembered of a file in the runtime's store; a checksum is added, too."""
    for mark in (data, data + xxhash.xxh3_64_digest(data)):
        vouched = _Vouched.decode(mark)
        assert vouched is None or vouched.encode() == mark


def traffic(data: bytes) -> None:
    """traffic.json: begun anew where it is broken, and always fit for an answer of the admin API."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "traffic.json")
        path.write_bytes(data)
        ledger = Ledger(path, Traffic, lambda: 1.7e9)
        trio.run(ledger.load)
        for counts in (ledger.total(), ledger.today()):
            json.dumps(asdict(counts))
        json.dumps(ledger.since, allow_nan=False)
        trio.run(ledger.save)


def node_identity(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "node-id").write_bytes(data)
        first = load_node_id(Path(directory))
        assert len(first) == 32
        assert load_node_id(Path(directory)) == first


def logins(data: bytes) -> None:
    """A Docker config.json: no login where it is broken; one that is taken can be sent as a header."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "config.json")
        path.write_bytes(data)
        login = trio.run(DockerConfig(path).login, "ghcr.io", "docker.io")
        if login is not None:
            login.basic.encode("ascii")


def node_configuration(data: bytes) -> None:
    _configuration(data, NodeConfig)


def seeder_configuration(data: bytes) -> None:
    _configuration(data, SeederConfig)


def _configuration(data: bytes, cls: type[Any]) -> None:
    try:
        parse(data, cls, "p2pd.toml")
    except ConfigError as error:
        _is_line(error)


def admin_order(data: bytes) -> None:
    """A request's body; the first byte chooses the endpoint."""
    cls = (PullOrder, VerifyOrder, CollectOrder)[data[0] % 3 if data else 0]
    try:
        order = read_order(cls, data[1:])
        if isinstance(order, PullOrder):
            parse_image(order.reference)
            if order.platform is not None:
                Platform.parse(order.platform)
        elif isinstance(order, VerifyOrder):
            for digest in order.digests:
                Digest.parse(digest)
    except UserMistake as error:
        _is_line(error)


def reference(data: bytes) -> None:
    """A name as users and clients write it: what is taken reads the same again."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        repository, name = parse_image(text)
        assert Repository.parse(repository.registry, repository.name) == repository
        assert parse_reference(str(name)) == name
    except InvalidReference as error:
        _is_line(error)


def _is_line(error: Exception) -> None:
    """Errors go to logs, to clients as JSON and to terminals."""
    line = str(error)
    line.encode()
    assert line
    assert len(line) <= _ERROR_LIMIT
    assert line.isprintable(), ascii(line)


Target = Callable[[bytes], None]

TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        registry_path,
        byte_range,
        answer_headers,
        challenge,
        control_frames,
        control_frame,
        txt_record,
        manifest,
        piece_table,
        journal,
        tag_record,
        listing,
        next_page,
        token_answer,
        runtime_mark,
        traffic,
        node_identity,
        logins,
        node_configuration,
        seeder_configuration,
        admin_order,
        reference,
    )
}
