"""The answering side: what it serves, and what it closes, in virtual time."""

from __future__ import annotations

import errno
from contextlib import AsyncExitStack

import msgpack  # type: ignore[import-untyped]  # ships no types
import pytest
import structlog
import trio
import trio.testing

from p2pd.io.peer_link import Timing
from p2pd.io.peer_server import Limits, LogLimit, PeerServer
from p2pd.model.errors import PeerFault, PeerProtocolError
from p2pd.model.messages import (
    Hello,
    Ping,
    Pong,
    Query,
    QueryReply,
    Refused,
    Reply,
    Request,
)
from p2pd.wire.codec import Envelope, encode
from tests.support.memory_lan import (
    DIGEST,
    HELLO_B,
    A,
    open_lan,
)
from tests.support.peer_handlers import ScriptedHandler


async def test_no_hello_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        wire = lan.connect(network)
        started = trio.current_time()
        assert isinstance((await wire.receive() or Envelope(0, 0, None)).message, Hello)
        assert await wire.receive() is None
        assert trio.current_time() - started == pytest.approx(3)


async def test_bytes_one_by_one_are_served_like_any_other(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        wire = lan.connect(network)
        for byte in encode(HELLO_B) + encode(Query(DIGEST), 5):
            await wire.stream.send_all(bytes([byte]))
        assert isinstance((await wire.receive() or Envelope(0, 0, None)).message, Hello)
        answer = await wire.receive()
        assert answer is not None
        assert (answer.correlation, answer.message) == (5, QueryReply(7, None))


async def test_an_unknown_request_is_refused_and_an_unknown_notice_ignored(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        wire = await lan.introduced(network)
        for number, correlation in ((0x7E, 0), (0x3E, 8)):
            body = msgpack.packb([1, number, correlation, "new"])
            await wire.stream.send_all(len(body).to_bytes(4, "big") + body)
        answer = await wire.receive()
        assert answer is not None
        assert answer.correlation == 8
        assert isinstance(answer.message, Refused)
        assert answer.message.kind == "unsupported"


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, b"\xff" * 5000, b"\x00\x00\x00\x01\x90"]
)
@pytest.mark.parametrize("after_hello", [False, True])
async def test_garbage_ends_its_connection_with_one_line_a_minute(
    autojump_clock: trio.testing.MockClock, garbage: bytes, after_hello: bool
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with open_lan() as lan:
            network = await lan.node()
            for _ in range(20):
                wire = await lan.introduced(network) if after_hello else lan.connect(network)
                await wire.stream.send_all(garbage)
                while await wire.receive() is not None:
                    pass
    assert sum(entry["log_level"] == "warning" for entry in logs) == 1


async def test_a_handler_that_fails_is_refused_and_logged(autojump_clock: trio.testing.MockClock) -> None:
    async def fail(request: Request) -> Reply:
        raise ZeroDivisionError

    with structlog.testing.capture_logs() as logs:
        async with open_lan() as lan:
            network = await lan.node(ScriptedHandler(fail))
            wire = await lan.introduced(network)
            await wire.send(Query(DIGEST), 1)
            answer = await wire.receive()
            assert answer is not None
            assert isinstance(answer.message, Refused)
            assert answer.message.kind == "fault"
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["request failed"]


async def test_requests_over_the_limit_are_refused_while_pings_are_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def never(request: Request) -> Reply:
        await trio.sleep_forever()
        raise AssertionError

    async with open_lan() as lan:
        network = await lan.node(ScriptedHandler(never), Limits(requests_per_connection=3))
        wire = await lan.introduced(network)
        for number in range(1, 5):
            await wire.send(Query(DIGEST), number)
        await wire.send(Ping(), 9)
        answers = [await wire.receive(), await wire.receive()]
        assert [(a.correlation, type(a.message)) for a in answers if a] == [(4, Refused), (9, Pong)]


async def test_an_answer_that_never_comes_has_a_ceiling(autojump_clock: trio.testing.MockClock) -> None:
    async def never(request: Request) -> Reply:
        await trio.sleep_forever()
        raise AssertionError

    async with open_lan() as lan:
        network = await lan.node(ScriptedHandler(never), Limits(answer=10))
        wire = await lan.introduced(network)
        await wire.send(Query(DIGEST), 1)
        answer = await wire.receive()
        assert answer is not None
        assert isinstance(answer.message, Refused)
        assert answer.message.kind == "unavailable"


async def test_a_silent_dialler_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    async with open_lan() as lan:
        network = await lan.node()
        wire = await lan.introduced(network)
        since = trio.current_time()
        assert await wire.receive() is None
        assert trio.current_time() - since == pytest.approx(20)


class _TiredListener(trio.abc.Listener[trio.SocketStream]):
    """Fails as the kernel does when descriptors run out, then goes on."""

    def __init__(self, inner: trio.SocketListener) -> None:
        self._inner = inner
        self.failures = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ECONNABORTED]

    async def accept(self) -> trio.SocketStream:
        if self.failures:
            raise OSError(self.failures.pop(), "no more")
        return await self._inner.accept()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_no_descriptors_left_is_survived_and_one_host_gets_few_connections() -> None:
    inner, *_ = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = inner.socket.getsockname()[1]
    listener = _TiredListener(inner)
    limits = Limits(connections_per_host=4)
    me = Hello(A, "shop", 6881, 7781)
    server = PeerServer(
        lambda: me,
        ScriptedHandler(),
        lambda hello, host: None,
        lambda peer: None,
        lambda host: False,
        Timing(),
        limits,
    )
    async with AsyncExitStack() as stack, inner, trio.open_nursery() as nursery:
        nursery.start_soon(server.listen, listener)
        streams = [
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port)) for _ in range(20)
        ]
        heads = []
        for stream in streams:
            try:
                heads.append(bool(await stream.receive_some(1)))
            except trio.BrokenResourceError:
                heads.append(False)
        assert listener.failures == []
        assert heads.count(True) == 4
        # Room is given back when connections end.
        for stream in streams:
            await stream.aclose()
        while server._open:
            await trio.testing.wait_all_tasks_blocked()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            assert await stream.receive_some(1)
        nursery.cancel_scope.cancel()


async def test_log_limit(autojump_clock: trio.testing.MockClock) -> None:
    limit = LogLimit(60)
    assert [limit.take() for _ in range(4)] == [0, None, None, None]
    await trio.sleep(60)
    assert limit.take() == 3
    assert issubclass(PeerProtocolError, PeerFault)
