"""Connections: limits, time-outs and the shutdown, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import structlog
import trio
from starlette.types import ASGIApp, Receive, Scope, Send

from p2pd.io.serve import serve
from p2pd.model.errors import ConfigError, OurFault
from tests.support.waiting import until


@asynccontextmanager
async def serving(app: ASGIApp, **settings: float) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """The port, and what cancels the server; leaving waits for its end."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            run = partial(serve, app, host="127.0.0.1", port=0, **settings)  # type: ignore[arg-type] # numbers
            scope = trio.CancelScope()

            async def start(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
                with scope:
                    await run(task_status=task_status)

            _, port = await nursery.start(start)
            yield port, scope.cancel
            scope.cancel()


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Endless:
    """Sends zeros until it is cancelled; `running` counts its requests."""

    def __init__(self) -> None:
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.running += 1
        try:
            length = (b"content-length", str(2**40).encode())
            await send({"type": "http.response.start", "status": 200, "headers": [length]})
            while True:
                await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
        finally:
            self.running -= 1


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
GET_AND_CLOSE = GET[:-2] + b"Connection: close\r\n\r\n"


async def to_the_end(stream: trio.SocketStream) -> bytes:
    received = b""
    while data := await stream.receive_some(2**20):
        received += data
    return received


async def until_refused(port: int) -> None:
    with trio.fail_after(5), suppress(OSError):
        while True:
            await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()


async def test_a_port_in_use_is_told_in_one_line() -> None:
    async with serving(hello) as (port, _):
        with pytest.raises(OurFault, match=f"127.0.0.1:{port}: Address already in use; stop what uses it"):
            await serve(hello, host="127.0.0.1", port=port)


@pytest.mark.parametrize(
    ("host", "port", "kind"),
    [
        ("192.0.2.1", 0, OurFault),  # as at a boot, before the network is up
        ("no such host", 0, OurFault),
        ("127.0.0.1", 99999, ConfigError),
        ("x" * 64, 0, ConfigError),
    ],
)
async def test_an_address_that_cannot_be_had(host: str, port: int, kind: type[Exception]) -> None:
    with trio.fail_after(20), pytest.raises(kind) as caught:
        await serve(hello, host=host, port=port)
    assert "\n" not in str(caught.value)


async def test_an_idle_or_slow_client_is_hung_up_on() -> None:
    async with serving(hello, idle_s=0.1) as (port, _):
        for sent in (b"", GET, GET[:10], GET[:-2]):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                if sent:
                    await stream.send_all(sent)
                assert (await to_the_end(stream)).endswith(b"hello" if sent == GET else b"")


async def test_a_client_that_stops_reading_is_dropped() -> None:
    app = Endless()
    async with serving(app, write_s=0.1) as (port, _):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(GET)
            await stream.receive_some(1000)
            await until(lambda: app.running == 0)


async def test_the_shutdown_waits_for_answers_but_not_for_ever() -> None:
    app = Endless()
    async with serving(app, graceful_s=0.2, linger_s=0.1) as (port, cancel):
        streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
        for stream in streams[:2]:
            await stream.send_all(GET)
            await stream.receive_some(1000)
        began = trio.current_time()
        cancel()
        # One is busy but read by nobody, one is busy and read, one is idle.
        assert await to_the_end(streams[2]) == b""
        assert trio.current_time() - began < 0.15
        await to_the_end(streams[1])
    assert app.running == 0
    for stream in streams:
        await stream.aclose()


async def test_a_running_answer_is_finished_in_the_shutdown() -> None:
    asked, go = trio.Event(), trio.Event()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        await go.wait()
        await hello(scope, receive, send)

    async with serving(waiting, graceful_s=10) as (port, cancel):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(GET)
            await asked.wait()
            cancel()
            await until_refused(port)
            go.set()
            assert (await to_the_end(stream)).endswith(b"hello")


async def test_too_many_connections_are_closed_at_once() -> None:
    async with serving(hello, max_connections=2) as (port, _):
        streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
        answers = []
        for stream in streams:
            await stream.send_all(GET_AND_CLOSE)
        for stream in streams:
            answers.append(await to_the_end(stream))
            await stream.aclose()
        assert sorted(answer[-5:] for answer in answers) == [b"", b"hello", b"hello"]
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(GET_AND_CLOSE)
            assert (await to_the_end(stream)).endswith(b"hello")


async def test_connections_kept_for_another_request_make_room() -> None:
    async def ask(stream: trio.SocketStream) -> None:
        await stream.send_all(GET)
        received = b""
        while not received.endswith(b"hello"):
            received += (data := await stream.receive_some(1000))
            assert data

    async with serving(hello, max_connections=2) as (port, _):
        kept = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        for stream in (*kept, kept[0]):
            await ask(stream)
        async with await trio.open_tcp_stream("127.0.0.1", port) as new:
            await ask(new)
            assert await to_the_end(kept[1]) == b"", "the one that waited longest"
            await ask(kept[0])
        for stream in kept:
            await stream.aclose()


async def test_two_hundred_clients_at_once() -> None:
    app = Endless()
    read: list[int] = []

    async def one(port: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(GET)
            read.append(len(await stream.receive_some(4096)))

    async with serving(app) as (port, _):
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(one, port)
        await until(lambda: app.running == 0)
    assert len(read) == 200


async def test_a_bug_in_the_application_is_one_line_in_the_log() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError("a bug")

    with structlog.testing.capture_logs() as logs:
        async with serving(broken) as (port, _):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                await stream.send_all(GET)
                assert b" 500 " in await stream.receive_some(1000)
    assert [entry["event"] for entry in logs] == ["request failed unexpectedly"]
