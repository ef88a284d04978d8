"""Grammar of what nodes say about themselves, shared by Hello and the mDNS record."""

from __future__ import annotations

import re

from p2pd.model.errors import PeerProtocolError
from p2pd.wire.exchange import one_line

__all__ = ["check_node_id", "check_port", "check_site", "is_node_id", "is_site"]

_NODE_ID = re.compile(r"[0-9a-f]{16,64}")
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def is_node_id(text: str) -> bool:
    """16 to 64 lower-case hexadecimal digits."""
    return _NODE_ID.fullmatch(text) is not None


def is_site(text: str) -> bool:
    """1 to 63 of letters, digits, dot, hyphen and underscore; the first a letter or digit."""
    return _SITE.fullmatch(text) is not None


def check_node_id(text: str) -> str:
    if not is_node_id(text):
        raise PeerProtocolError(f"node id {one_line(text, 70)!r} is not 16 to 64 hexadecimal digits")
    return text


def check_site(text: str) -> str:
    if not is_site(text):
        raise PeerProtocolError(f"site name {one_line(text, 70)!r} is not 1 to 63 of [A-Za-z0-9._-]")
    return text


def check_port(port: int) -> int:
    if not 1 <= port <= 65535:
        raise PeerProtocolError(f"port {port} is not within 1 to 65535")
    return port
