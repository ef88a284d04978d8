"""However a server stops, its clients read an end of file, and never an RST: containerd fails a pull on one.

The clients' calls here block on purpose: the server does not run between two of them, so that what
they do meets it at the very moment that is meant.
"""

from __future__ import annotations

import socket

import trio
from starlette.types import Receive, Scope, Send

from tests.io.test_serve import GET, Endless, hello, serving

NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"


def connected(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


async def end_of(client: socket.socket) -> bytes:
    """What comes before the end of file, from now. Raises ConnectionResetError on an RST."""
    received = bytearray()
    while data := await trio.to_thread.run_sync(client.recv, 65536):
        received += data
    return bytes(received)


async def first_bytes_of(client: socket.socket) -> bytes:
    return await trio.to_thread.run_sync(client.recv, 1000)


async def test_an_answer_that_is_cut_with_bytes_of_the_client_unread() -> None:
    app = Endless()
    async with serving(app, graceful_s=0.05) as (port, cancel):
        with connected(port) as client:
            client.sendall(GET)
            await first_bytes_of(client)
            client.sendall(NEXT * 100)
            cancel()
            assert len(await end_of(client)) > 0
    assert app.running == 0


async def test_a_client_that_sends_on_after_its_answer_was_cut() -> None:
    async with serving(Endless(), graceful_s=0) as (port, cancel):
        with connected(port) as client:
            client.sendall(GET)
            await first_bytes_of(client)
            cancel()
            await trio.sleep(0.02)
            client.sendall(NEXT)
            await end_of(client)


async def test_a_source_that_fails_in_mid_body_while_the_client_sends_on() -> None:
    go_on = trio.Event()

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"four", "more_body": True})
        await go_on.wait()

    async with serving(failing) as (port, cancel):
        with connected(port) as client:
            client.sendall(GET)
            await first_bytes_of(client)
            client.sendall(NEXT)
            cancel()
            go_on.set()
            assert (await end_of(client))[-4:] in (b"four", b"")


async def test_a_request_on_a_kept_connection_just_as_the_server_stops() -> None:
    async with serving(hello) as (port, cancel):
        with connected(port) as client:
            client.sendall(GET)
            while not (await first_bytes_of(client)).endswith(b"hello"):
                pass
            cancel()
            client.sendall(NEXT)
            assert (await end_of(client)).endswith(b"hello")


async def test_a_request_on_a_kept_connection_just_after_the_server_has_closed_it() -> None:
    async with serving(hello) as (port, cancel):
        with connected(port) as client:
            client.sendall(GET)
            while not (await first_bytes_of(client)).endswith(b"hello"):
                pass
            cancel()
            assert await end_of(client) == b""
            client.sendall(NEXT)
            assert await end_of(client) == b""


async def test_connections_that_were_not_accepted_when_the_server_stopped() -> None:
    async with serving(hello) as (port, cancel):
        clients = [connected(port) for _ in range(40)]
        for client in clients:
            client.sendall(GET)
        cancel()
        for client in clients:
            with client:
                assert (await end_of(client)).endswith(b"hello")


async def test_connections_above_the_limit() -> None:
    async with serving(hello, max_connections=1) as (port, _):
        clients = [connected(port) for _ in range(10)]
        for client in clients:
            client.sendall(GET.replace(b"Host", b"Connection: close\r\nHost"))
        answers = []
        for client in clients:
            with client:
                answers.append((await end_of(client))[-5:])
        assert sorted(answers) == [b""] * 9 + [b"hello"]
