"""A host of the LAN gone mad, as a process: `python -m benchmarks.faults.noise COUNT HOST:PORT…`.

It opens COUNT connections to each address, a few hundred at a time, and sends on each one of: random
bytes, a frame that claims to be huge, a frame of deeply nested msgpack, an HTTP request, nothing.
"""

from __future__ import annotations

import random
import struct
import sys

import trio

_AT_ONCE = 300
_ROUND = 50
_HOLD_S = 0.5
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


async def main(count: int, addresses: list[str]) -> None:
    limiter = trio.CapacityLimiter(_AT_ONCE)
    for first in range(0, count, _ROUND):
        async with trio.open_nursery() as nursery:
            for number in range(first, min(first + _ROUND, count)):
                for address in addresses:
                    nursery.start_soon(_connection, address, number, limiter)
    sys.stdout.write("done\n")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2:])
