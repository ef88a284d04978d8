"""Where the search begins: for each target a few inputs that are right, to spare it guessing."""

from __future__ import annotations

import json
import struct

from p2pd.io.listings import encode_listing
from p2pd.io.pieces import PieceHasher, entry_of
from p2pd.io.tags import encode_record
from p2pd.model.content import OCI_INDEX, OCI_MANIFEST, Descriptor
from p2pd.model.layout import Layout
from p2pd.model.listing import ListingKey
from p2pd.model.messages import (
    Fetch,
    Fetched,
    Hello,
    Join,
    Joined,
    Message,
    Ping,
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
    UseReply,
    Want,
    WantReply,
)
from p2pd.model.rate import LinkUse
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.store import ListingRecord, TagRecord
from p2pd.wire.codec import encode
from p2pd.wire.txt import NodeRecord, encode_txt

__all__ = ["SEEDS"]

_D = Digest("ab" * 32)
_HEX = str(_D).encode()
_REPOSITORY, _TAG = Repository("docker.io", "library/alpine"), Tag("3.20")
_DESCRIPTOR = Descriptor(_D, 7, OCI_MANIFEST)
_SIZE = 3 * 1024 * 1024
_PROGRESS = Progress(_D, _SIZE, b"\xff\x0f", b"\x00\x01", "seeder", False)
_MESSAGES: list[Message] = [
    Hello("0123456789abcdef", "site", 7782, 7781, 5),
    Ping(),
    Query(_D),
    Want(_PROGRESS),
    Join(_D, _SIZE, 0, fingerprint=bytes(16)),
    Read(_D, 0, 100),
    Fetch(_REPOSITORY, _D, True),
    Resolve(_REPOSITORY, _TAG, True),
    Refused("busy", "later"),
    QueryReply(5, None),
    WantReply(False, _PROGRESS),
    Joined(True, bytes(20)),
    Joined(True, None, is_same=True),
    ReadReply(b"data"),
    Fetched(3),
    Resolved(_DESCRIPTOR, 1.5),
    Recall(ListingKey.tags(_REPOSITORY, "n=3")),
    Recalled(b"{}", 1.5),
    UseReply(LinkUse(True, False, True)),
    _PROGRESS,
    ProgressBatch((ProgressDelta(_D, _SIZE, 0, b"\x03", 2, b"\x01", "none"),)),
    SegmentReady(_D, _SIZE, 0, bytes(20 * 12)),
]


def _manifest() -> bytes:
    part = {"mediaType": "application/x", "digest": str(_D), "size": 5}
    found = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": part, "layers": [part], "subject": part}
    return json.dumps(found).encode()


def _index() -> bytes:
    platform = {"os": "linux", "architecture": "arm", "variant": "v7"}
    part = {"digest": str(_D), "size": 5, "platform": platform, "artifactType": "application/x"}
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [part]}).encode()


def _sidecar() -> bytes:
    hasher = PieceHasher(300_000)
    hasher.update(bytes(300_000))
    return hasher.table().encode()


def _traffic() -> bytes:
    counts = {"given": 1, "lan": 2, "seeder": 3, "origin": 4}
    return json.dumps({"since": 1.7e9, "total": counts, "day": "2023-11-14", "day_began": counts}).encode()


_CONFIGURATION = b"""[node]
site = "hall-3"
[lan]
peers = ["10.1.0.7:7781", "[fd00::1]:7781"]
rate_windows = ["22:00-06:00 = unlimited"]
[wan]
seeders = ["http://seeder.example:7790"]
rate_limit = "20 Mbit/s"
[store]
max_bytes = "10GiB"
min_free = "10%"
max_age = "30d"
[upstreams."reg.example:5000"]
url = "https://reg.example:5000"
alias = "reg"
[log]
level = "debug"
"""
_SEEDER_CONFIGURATION = b"""[seeder]
listen = "0.0.0.0:7790"
tag_ttl = "5s"
[upstreams."ghcr.io"]
url = "https://ghcr.io"
[metrics]
listen = "127.0.0.1:1"
"""

SEEDS: dict[str, list[bytes]] = {
    "registry_path": [
        b"b/v2/",
        b"b/v2/library/alpine/manifests/3.20?ns=ghcr.io",
        b"-/v2/reg/a/b/blobs/" + _HEX,
        b"-/v2/reg.example:5000/a/tags/list?n=5&last=b",
        b"-/v2/reg/a/referrers/" + _HEX + b"?artifactType=a%2Fb",
    ],
    "byte_range": [b"\x01\x00bytes=0-99", b"\x01\x00bytes=-5", b"\x01\x00bytes= 9999-"],
    "answer_headers": [b"120", b"Wed, 21 Oct 2026 07:28:00 GMT", b"bytes 0-99/1000"],
    "challenge": [
        b'Bearer realm="https://auth.example/token",service="reg",scope="repository:a:pull"',
        b'Negotiate abc==, Basic realm="x\\"y"',
    ],
    "control_frames": [encode(message, 3) for message in _MESSAGES],
    "control_frame": [encode(message, 3)[4:] for message in _MESSAGES],
    "txt_record": [encode_txt(NodeRecord("0123456789abcdef", "site", 7782))],
    "manifest": [OCI_MANIFEST.encode() + b"\n" + _manifest(), b"\n" + _index(), b"text/plain; a=b\n{}"],
    "piece_table": [
        _sidecar(),
        _sidecar()[:-8],
        struct.pack(">8sQI", b"p2pdpcs1", 1, Layout(1).piece_length) + bytes(28),
    ],
    "journal": [b"\x00\x00" + entry_of(bytes(256 * 1024)), b"\x00\x03abc" + bytes(56)],
    "tag_record": [encode_record(_REPOSITORY, _TAG, TagRecord(_DESCRIPTOR, 1.7e9))],
    "listing": [
        b'\x01{"name": "library/alpine", "tags": ["3.19", "3.20"]}',
        b'\x00{"schemaVersion": 2, "manifests": [{"digest": "' + _HEX + b'"}]}',
        encode_listing(ListingKey.tags(_REPOSITORY, ""), ListingRecord(b'{"tags": null}', 1.7e9)),
    ],
    "next_page": [b"/v2/a/tags/list?n=2&last=b", b"https://[::1]/x?token=%20y", b"//[x"],
    "token_answer": [b'{"token": "abc.def-_=", "expires_in": 300}', b'{"access_token": "x"}'],
    "runtime_mark": [bytes(40)],
    "traffic": [_traffic()],
    "node_identity": [b"0123456789abcdef0123456789abcdef\n"],
    "logins": [
        b'{"auths": {"https://ghcr.io/v1/": {"auth": "dXNlcjpwYXNz"}, "docker.io": {"identitytoken": "x"}}}',
        b'{"auths": {"ghcr.io": {"username": "u", "password": "p"}}}',
    ],
    "node_configuration": [_CONFIGURATION],
    "seeder_configuration": [_SEEDER_CONFIGURATION],
    "admin_order": [
        b'\x00{"reference": "ghcr.io/a/b:1@' + _HEX + b'", "platform": "linux/arm/v7"}',
        b'\x01{"digests": ["' + _HEX + b'"]}',
        b'\x02{"dry_run": true}',
    ],
    "reference": [b"alpine", b"reg.example:5000/a/b-c:tag@" + _HEX, b"localhost/a"],
}
