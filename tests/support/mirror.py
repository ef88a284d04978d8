"""The registry API over content in memory, served on a real socket, and its clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import trio
from starlette.types import ASGIApp

from p2pd.io.registry_app import build_app
from p2pd.io.serve import serve
from p2pd.wire.registry_api import Upstreams
from tests.support.memory_content import MemoryContent

__all__ = ["UPSTREAMS", "client_of", "mirror", "port_of", "raw_get", "read_to_fin", "serving"]

UPSTREAMS = Upstreams({"ghcr.io": "ghcr.io"}, default="docker.io")


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
            await serve(app, host="127.0.0.1", port=0, graceful_s=1, task_status=task_status)

        _, port = await nursery.start(start)
        yield port
        nursery.cancel_scope.cancel()


def client_of(port: int) -> httpx.AsyncClient:
    """It reads no CAs, which takes longer than most tests here: the mirror speaks plain HTTP."""
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=False)


@asynccontextmanager
async def mirror(content: MemoryContent, **settings: float) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(content, upstreams=UPSTREAMS, **settings)  # type: ignore[arg-type] # times only
    with trio.fail_after(20):
        async with serving(app) as port, client_of(port) as client:
            yield client


def port_of(client: httpx.AsyncClient) -> int:
    assert client.base_url.port is not None
    return client.base_url.port


async def raw_get(stream: trio.SocketStream, path: str, headers: str = "") -> None:
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())


async def read_to_fin(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    """Head and body up to the server's FIN. An RST raises trio.BrokenResourceError."""
    received = b""
    while data := await stream.receive_some(65536):
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body
