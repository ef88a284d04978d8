"""Trying out what a node needs of its machine and network: ports, HTTP, multicast, the disk.

Nothing here is on the daemon's path. What does not work is an answer, not an error, but for `http_get`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trio
import zeroconf

from p2pd.io.http import HttpPool, Timeouts, read_body
from p2pd.io.mdns import SERVICE_TYPE, LocalAddress
from p2pd.model.content import MANIFEST_TYPES
from p2pd.model.errors import PeerProtocolError, UserMistake
from p2pd.wire.txt import parse_txt

__all__ = [
    "DiskFacts",
    "Heard",
    "Node",
    "bind_error",
    "connect_error",
    "disk_facts",
    "http_get",
    "try_multicast",
]

_ACCEPT = ", ".join(MANIFEST_TYPES)
_HTTP = Timeouts(connect=5.0, headers=12.0, stall=10.0)
_GROUP, _PORT = "224.0.0.251", 5353
_DATAGRAM = 9000


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A node that answered: where its control plane is, and which site it belongs to."""

    host: str
    port: int
    site: str
    node_id: str


@dataclass(slots=True)
class Heard:
    """What one interface sent and received. `error` is why it could not even try."""

    address: LocalAddress
    itself: bool = False
    nodes: set[Node] = field(default_factory=set)
    error: str | None = None


async def connect_error(host: str, port: int, within: float = 3.0) -> str | None:
    """Why a TCP connection cannot be made; None where it can."""
    with trio.move_on_after(within):
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError as error:
            return _reason(error)
        await trio.aclose_forcefully(stream)
        return None
    return f"no answer within {within:g} s"


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        elif isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        else:
            cause = cause.__cause__
    return str(error)


def bind_error(host: str, port: int) -> OSError | None:
    """Why one cannot listen there; None where one can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
    except OSError as error:
        return error
    return None


# multicast


async def try_multicast(addresses: Sequence[LocalAddress], seconds: float = 2.0) -> list[Heard]:
    """Ask for p2pd nodes by multicast DNS on each address; what came back, our own question too."""
    found = [Heard(address) for address in addresses]
    logging.getLogger("zeroconf").setLevel(logging.CRITICAL)  # it tells of each malformed packet
    async with trio.open_nursery() as nursery:
        for heard in found:
            nursery.start_soon(_ask, heard, seconds)
    return found


async def _ask(heard: Heard, seconds: float) -> None:
    query = _query()
    try:
        with _open_multicast(heard.address.ip) as listener:
            await listener.sendto(query, (_GROUP, _PORT))
            with trio.move_on_after(seconds):
                while True:
                    data, sender = await listener.recvfrom(_DATAGRAM)
                    if data == query and sender[0] == heard.address.ip:
                        heard.itself = True
                    elif (node := _node_of(data, sender[0])) is not None:
                        heard.nodes.add(node)
    except OSError as error:
        heard.error = error.strerror or str(error)


@contextlib.contextmanager
def _open_multicast(ip: str) -> Iterator[trio.socket.SocketType]:
    """A socket that sends and hears multicast DNS on the interface of one address."""
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        plain.setblocking(False)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            plain.setsockopt(socket.SOL_SOCKET, option, 1)
        # Bound to the group: what is sent to this machine alone is not for us to take from others.
        plain.bind((_GROUP, _PORT))
        member = socket.inet_aton(_GROUP) + socket.inet_aton(ip)
        plain.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        plain.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(ip))
        plain.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        with trio.socket.from_stdlib_socket(plain) as listener:
            yield listener
    finally:
        plain.close()


def _query() -> bytes:
    """A question for the service. Its number is random, so that our own one is known again."""
    labels = SERVICE_TYPE.rstrip(".").split(".")
    name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    return struct.pack(">6H", secrets.randbelow(65535) + 1, 0, 1, 0, 0, 0) + name + struct.pack(">2H", 12, 1)


def _node_of(data: bytes, sender: str) -> Node | None:
    """The node that a datagram announces; None for anything else."""
    port, text = 0, b""
    try:
        incoming = zeroconf.DNSIncoming(data)  # type: ignore[attr-defined] # it exports it without saying so
        for record in incoming.answers() if incoming.valid and incoming.is_response() else ():
            if record.name.endswith(SERVICE_TYPE):
                port = getattr(record, "port", port)
                text = getattr(record, "text", text)
        found = parse_txt(text)
    except (zeroconf.Error, PeerProtocolError, ValueError, LookupError):
        return None
    return Node(sender, port, found.site, found.node_id) if port else None


# the disk


async def http_get(
    url: str, limit: int, *, ca_file: str | None = None, is_local: bool = False
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers (names in lower case) and body, of at most `limit` bytes. Raises P2pdError.

    Asks for manifests of images and indexes. `is_local`: past any proxy.
    """
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UserMistake(f"{url[:200]!a} is no URL: {error}") from error
    pool = HttpPool(ca_file, _HTTP, use_proxy=not is_local)
    try:
        response = await pool.send("GET", target, {"Accept": _ACCEPT})
        body = await read_body(response, limit)
    finally:
        await pool.aclose()
    return response.status_code, {name.lower(): value for name, value in response.headers.items()}, body


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """Bytes of the file system; `write_rate` in bytes a second, None with the reason in `error`."""

    total: int
    free: int
    write_rate: float | None
    error: str | None


def disk_facts(directory: Path, trial: int = 32 << 20) -> DiskFacts:
    """Measure by writing `trial` bytes durably, and delete them. Blocks.

    Raises OSError where there is no such directory.
    """
    usage = shutil.disk_usage(directory)
    if usage.free < 4 * trial:
        return DiskFacts(usage.total, usage.free, None, "too full to try")
    path = directory / f".doctor-{os.getpid()}"
    chunk = os.urandom(1 << 20)
    try:
        begun = time.monotonic()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for _ in range(trial >> 20):
                view = memoryview(chunk)
                while view:
                    view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
            path.unlink()
    except OSError as error:
        hint = "; run this as root" if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() else ""
        return DiskFacts(usage.total, usage.free, None, f"{error.strerror}{hint}")
    return DiskFacts(usage.total, usage.free, trial / max(time.monotonic() - begun, 1e-6), None)
