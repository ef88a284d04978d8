"""A registry that misbehaves, as a process: `python -m benchmarks.faults.bad_origin MODE IMAGE HOST PORT`.

It serves IMAGE (an OCI layout) as app:v1, honestly but for what `MODES` says about its blobs. One
line a request for a blob goes to stdout: digest and range.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import trio

from benchmarks.testbed import Image
from benchmarks.testbed.registry import (
    Behaviour,
    Exchange,
    FaultRegistry,
    drip,
    honest,
    range_of,
    short_body,
    stalled_body,
    status,
    wrong_bytes,
)
from p2pd.model.content import OCI_MANIFEST
from p2pd.model.reference import Tag

__all__ = ["MODES", "SMALL"]

SMALL = 1 << 20
"""Blobs up to this size are served honestly."""


def _too_long(size: int) -> Behaviour:
    """A length that is not the blob's, and bytes to match."""

    async def behave(exchange: Exchange) -> None:
        body = exchange.registry.blobs[exchange.seen.path.rsplit("/", 1)[1]] + bytes(100)
        start, stop = range_of(exchange.seen, len(body))
        if "range" in exchange.seen.headers:
            headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"}
            await exchange.answer(206, headers, body[start:stop])
        else:
            await exchange.answer(200, None, body)

    return behave


def _expiring(size: int) -> Behaviour:
    """The connection breaks in mid-blob, and by then the token is no good any more."""
    cut = short_body(size // 3)

    async def behave(exchange: Exchange) -> None:
        if not exchange.registry.admits(exchange.seen):
            await honest(exchange)
            return
        await cut(exchange)
        exchange.registry.valid_tokens.clear()

    return behave


MODES: dict[str, tuple[Callable[[int], Behaviour], int]] = {
    "honest": (lambda _size: honest, 0),
    "500": (lambda _size: status(500), 3),
    "429": (lambda _size: status(429, {"Retry-After": "2"}), 2),
    "stall": (lambda _size: stalled_body(0), 1),
    "drip": (lambda _size: drip(1024, 1.0), 2),
    "cut": (lambda size: short_body(size * 99 // 100), 2),
    "wrong-digest": (lambda _size: wrong_bytes, 1_000_000),
    "wrong-length": (_too_long, 1_000_000),
    "token": (_expiring, 2),
}
"""By name: what is done to requests for a blob of so many bytes, and to how many of them."""


async def main(mode: str, image: Image, host: str, port: int) -> None:
    registry = FaultRegistry(auth="bearer" if mode == "token" else None)
    for blob in image.blobs:
        registry.blobs[str(blob.digest)] = await trio.Path(image.path(blob.digest)).read_bytes()
        behave, times = MODES[mode]
        if blob.size > SMALL and times:
            registry.fault(f"GET /v2/app/blobs/{blob.digest}", behave(blob.size), times)
    manifest = await trio.Path(image.path(image.manifest.digest)).read_bytes()
    registry.add_manifest(manifest, Tag("v1"), media_type=OCI_MANIFEST)
    async with trio.open_nursery() as nursery:
        await nursery.start(registry.run, None, host, port)
        told = 0
        while True:
            await trio.sleep(0.05)
            for seen in registry.requests[told:]:
                if "/blobs/" in seen.path and seen.method == "GET":
                    wanted = seen.headers.get("range", "whole")
                    sys.stdout.write(f"{seen.path.rsplit('/', 1)[1]} {wanted}\n")
            told = len(registry.requests)
            sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Image.load(Path(sys.argv[2])), sys.argv[3], int(sys.argv[4]))
