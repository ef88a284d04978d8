"""A host of the LAN gone mad, as a process: `python -m benchmarks.faults.noise COUNT HOST:PORT…`.

It opens COUNT connections to each address, a few hundred at a time, and sends on each one of: random
bytes, a frame that claims to be huge, a frame of deeply nested msgpack, an HTTP request, nothing. As many
datagrams go to the same ports and to that of multicast DNS: random bytes, and announcements of nonsense.
"""

from __future__ import annotations

import random
import struct
import sys
from contextlib import suppress

import trio

from p2pd.io.mdns import SERVICE_TYPE

_AT_ONCE = 300
_ROUND = 50
_HOLD_S = 0.5
_MULTICAST_DNS = ("224.0.0.251", 5353)
_DEEP = b"\x91" * 500
_HUGE = struct.pack(">I", 0xFFFFFFF0) + random.Random(1).randbytes(64_000)


def _payload(number: int) -> bytes:
    kinds = (
        random.Random(number).randbytes(20_000),
        _HUGE,
        struct.pack(">I", len(_DEEP)) + _DEEP,
        struct.pack(">I", 5) + b"\xdd\xff\xff\xff\xff",
        b"GET /v2/ HTTP/1.1\r\nHost: noise\r\n\r\n",
        b"",
    )
    return kinds[number % len(kinds)]


async def _connection(address: str, number: int, limiter: trio.CapacityLimiter) -> None:
    host, _, port = address.rpartition(":")
    async with limiter:
        try:
            with trio.move_on_after(_HOLD_S):
                async with await trio.open_tcp_stream(host, int(port)) as stream:
                    await stream.send_all(_payload(number))
                    await stream.receive_some(1)
        except (OSError, trio.BrokenResourceError):
            return  # refused or thrown out, as it should be


def _datagram(number: int) -> bytes:
    chance = random.Random(number)
    if number % 2:
        return chance.randbytes(chance.randrange(1, 1400))
    labels = (b"x%d" % number, *SERVICE_TYPE.rstrip(".").encode().split(b"."))
    of_type, of_node = (b"".join(_label(one) for one in labels[at:]) + b"\0" for at in (1, 0))
    nonsense = chance.randbytes(chance.randrange(200))
    records = [_record(of_type, 12, of_node, 0)]  # PTR: there is such a node
    kinds = (16, 33, 1)  # TXT, SRV, A
    records += [_record(of_node, kind, nonsense, chance.randrange(2)) for kind in kinds]
    taken = records[: chance.randrange(1, 5)]
    return struct.pack(">6H", 0, 0x8400, 0, len(taken), 0, 0) + b"".join(taken)


def _label(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _record(name: bytes, kind: int, data: bytes, too_long_by: int) -> bytes:
    return name + struct.pack(">HHIH", kind, 1, 120, len(data) + too_long_by) + data


async def _datagrams(host: str, ports: set[int], count: int) -> None:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sender:
        for number in range(count):
            for port in ports:
                with suppress(OSError):  # nobody listens there, and the kernel says so
                    await sender.sendto(_datagram(number), (host, port))
            if number % _ROUND == 0:
                await trio.sleep(0.01)


async def main(count: int, addresses: list[str]) -> None:
    limiter = trio.CapacityLimiter(_AT_ONCE)
    ports: dict[str, set[int]] = {_MULTICAST_DNS[0]: {_MULTICAST_DNS[1]}}
    for address in addresses:
        host, _, port = address.rpartition(":")
        ports.setdefault(host, set()).add(int(port))
    async with trio.open_nursery() as nursery:
        for host, each in ports.items():
            nursery.start_soon(_datagrams, host, each, count)
        nursery.start_soon(_connections, count, addresses, limiter)
    sys.stdout.write("done\n")


async def _connections(count: int, addresses: list[str], limiter: trio.CapacityLimiter) -> None:
    for first in range(0, count, _ROUND):
        async with trio.open_nursery() as nursery:
            for number in range(first, min(first + _ROUND, count)):
                for address in addresses:
                    nursery.start_soon(_connection, address, number, limiter)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2:])
