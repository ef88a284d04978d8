"""The TXT record of a node's mDNS service.

Source: RFC 6763 section 6: length-prefixed `key=value` strings, keys without regard to case, the
first of two equal keys counts, unknown keys are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pd.model.errors import PeerProtocolError
from p2pd.wire.exchange import one_line
from p2pd.wire.fields import check_node_id, check_port, check_site

__all__ = ["NodeRecord", "encode_txt", "parse_txt"]

VERSION = "1"

_RECORD_LIMIT = 1300
"""Largest record read, bytes: RFC 6763 section 6.2 wants one packet for the whole answer."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """Who announces, for which site, and libtorrent's TCP port. The control port is in SRV."""

    node_id: str
    site: str
    swarm_port: int


def encode_txt(record: NodeRecord) -> bytes:
    """The record's data; the inverse of `parse_txt`."""
    pairs = {"v": VERSION, "id": record.node_id, "site": record.site, "swarm": str(record.swarm_port)}
    strings = [f"{key}={value}".encode("ascii") for key, value in pairs.items()]
    return b"".join(bytes([len(string)]) + string for string in strings)


def parse_txt(data: bytes) -> NodeRecord:
    """Raises PeerProtocolError for anything that is not version 1 of the record."""
    if len(data) > _RECORD_LIMIT:
        raise PeerProtocolError(f"TXT record of {len(data)} bytes is over the limit of {_RECORD_LIMIT}")
    pairs = _pairs(data)
    version = pairs.get("v")
    if version != VERSION:
        raise PeerProtocolError(f"TXT record has version {one_line(str(version), 32)!r}, not {VERSION!r}")
    port = pairs.get("swarm", "")
    # Plain ASCII digits: int() would also take signs, blanks, underscores and other scripts' digits.
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise PeerProtocolError(f"TXT record has no valid swarm port: {one_line(port, 32)!r}")
    return NodeRecord(
        check_node_id(pairs.get("id", "")), check_site(pairs.get("site", "")), check_port(int(port))
    )


def _pairs(data: bytes) -> dict[str, str]:
    pairs: dict[str, str] = {}
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        if end > len(data):
            raise PeerProtocolError("TXT record ends inside a string")
        key, equals, value = data[at + 1 : end].partition(b"=")
        if equals:
            pairs.setdefault(key.decode("latin-1").lower(), value.decode("latin-1"))
        at = end
    return pairs
