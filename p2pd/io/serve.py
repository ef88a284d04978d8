"""An ASGI application on a TCP port or Unix socket: Hypercorn's HTTP/1.1 on trio, below our own connection.

Hypercorn's trio worker is not used as it is, for three things that a registry mirror cannot have:

* it sends under a shield, so a client that stops reading holds its task, and the shutdown, for ever;
* it closes the socket right after the last byte, and when the client has sent anything meanwhile the
  kernel makes that an RST, on which containerd fails the whole pull (a FIN, however early, makes it ask
  for the rest, here or at its next host);
* it speaks HTTP/2 and WebSocket to whoever asks.

So the connection is ours (time-outs, FIN, bounds) and the protocol is Hypercorn's.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError, H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import TrioSingleTask, WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from starlette.types import ASGIApp, Receive, Scope, Send

from p2pd.io.local_socket import listening
from p2pd.model.errors import ConfigError, OurFault

__all__ = ["serve", "serve_unix"]

log = structlog.get_logger()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Times:
    """See `serve`."""

    graceful: float
    idle: float = 30.0
    write: float = 60.0
    linger: float = 4.0


_RECEIVE = 64 * 1024
_BACKLOG = 256
_MAX_PORT = 65535
_LOCAL_CONNECTIONS = 32
_LAST_CALL = 0.05
"""Seconds, at the stop, in which a request that was sent just now may still arrive and be answered."""

_TURNED_AWAY = 256
"""Connections over the limit that may wait for the client's FIN at a time; others are cut."""


async def serve(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    graceful_s: float = 3.0,
    idle_s: float = 30.0,
    write_s: float = 60.0,
    linger_s: float = 4.0,
    max_connections: int = 512,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; reports the bound (host, port), where `port` 0 lets the system choose.

    A request whose client has left is cancelled, whether it listens for `http.disconnect` or not.
    Cancelled itself, `serve` stops listening, gives running answers `graceful_s` seconds, then cuts them
    short. However a connection ends, the client reads an end of file after the last byte, and no RST:
    for `linger_s` seconds after our FIN we wait for the client's, and read what it still sends.
    `idle_s`: longest wait for a whole request head, from the connection's start or from the last
    answer. `write_s`: longest wait for a client to take one chunk. Above `max_connections` one that was kept
    after an answer gives way to a new one; where there is none, the new one is closed at once. Raises
    OurFault when it cannot listen there now (the port is taken, the network is not up yet), ConfigError
    when it never can.
    """
    listener = await _listen(host, port)
    bound = listener.socket.getsockname()
    times = _Times(graceful_s, idle_s, write_s, linger_s)
    await _serve_on(app, listener, (bound[0], bound[1]), times, max_connections, task_status)


async def serve_unix(
    app: ASGIApp,
    path: Path,
    *,
    group: str,
    graceful_s: float = 1.0,
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """The same at a Unix socket, for this user and `group`; reports its path. For a few clients."""
    with listening(path, group) as listener:
        await _serve_on(app, listener, path, _Times(graceful_s), _LOCAL_CONNECTIONS, task_status)


async def _serve_on(
    app: ASGIApp,
    listener: trio.SocketListener,
    bound: T,
    times: _Times,
    max_connections: int,
    task_status: trio.TaskStatus[T],
) -> None:
    context = WorkerContext(None)
    config = _config(times.idle)
    wrapped = ASGIWrapper(cast(ASGIFramework, _contained(app)))
    stopped = trio.Event()

    async def hold(task_status: trio.TaskStatus[trio.Nursery]) -> None:
        async with trio.open_nursery() as connections:
            task_status.started(connections)
            await stopped.wait()

    # The queue outlives the listener's own descriptor: closing the last one resets who waits to be accepted.
    with socket.socket(fileno=os.dup(listener.socket.fileno())) as queue:
        async with listener, trio.open_nursery() as nursery:
            connections: trio.Nursery = await nursery.start(hold)
            # They outlive a cancellation by the grace. Not before `finally` below is sure to end them.
            connections.cancel_scope.shield = True
            served = 0
            kept: dict[_Connection, None] = {}

            async def accept(stream: trio.SocketStream) -> None:
                nonlocal served
                if served >= max_connections and kept:
                    next(iter(kept)).retire()
                elif served >= max_connections:
                    log.warning("too many connections, one was closed", limit=max_connections)
                    async with stream:
                        if len(connections.child_tasks) <= max_connections + _TURNED_AWAY:
                            await _part(stream, times.linger)
                    return
                served += 1
                try:
                    await _handle(_Connection(wrapped, config, context, stream, times, kept))
                finally:
                    served -= 1

            try:
                task_status.started(bound)
                await trio.serve_listeners(accept, [listener], handler_nursery=connections)
            finally:
                for stream in _drained(queue):
                    connections.start_soon(accept, stream)
                connections.cancel_scope.deadline = trio.current_time() + times.graceful
                stopped.set()
                with trio.CancelScope(shield=True):
                    await context.terminated.set()


def _drained(queue: socket.socket) -> Iterator[trio.SocketStream]:
    """Close a listening socket; yields the connections that nobody had accepted yet."""
    with queue:
        queue.setblocking(False)
        while True:
            try:
                sock, _ = queue.accept()
            except OSError:
                return
            yield trio.SocketStream(trio.socket.from_stdlib_socket(sock))


async def _part(stream: trio.SocketStream, linger_s: float) -> None:
    """Send our FIN and read on until the client's: closing with bytes unread would send an RST.

    Shielded, for `linger_s` seconds only: whoever is cancelled still parts in good order.
    """
    with trio.move_on_after(linger_s, shield=True):
        try:
            await stream.send_eof()
            while await stream.receive_some(_RECEIVE):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


def _contained(app: ASGIApp) -> ASGIApp:
    """`app` with its bugs logged on one line; the client sees a 500, or a body cut short."""

    async def contained(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:
            log.error("request failed unexpectedly", path=scope.get("path"), error=repr(error))  # noqa: TRY400

    return contained


def _config(idle_s: float) -> Config:
    config = Config()
    config.errorlog = None
    config.accesslog = None
    config.include_server_header = False
    config.keep_alive_timeout = idle_s
    config.keep_alive_max_requests = 1_000_000
    return config


async def _listen(host: str, port: int) -> trio.SocketListener:
    if not 0 <= port <= _MAX_PORT:  # getaddrinfo would take it modulo 65536
        raise ConfigError(f"cannot listen on port {port}: ports are 0 to {_MAX_PORT}; configure another")
    try:
        found = await trio.socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise _not_listening(host, port, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _not_listening(host, port, error) from error
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _not_listening(host: str, port: int, error: OSError | UnicodeError) -> OurFault | ConfigError:
    """A service manager starts again after an OurFault, and not after a mistake in the configuration."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    is_taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
    advice = "stop what uses it, or configure another port" if is_taken else "configure another address"
    says = f"cannot listen on {host}:{port}: {reason}; {advice}"
    return ConfigError(says) if isinstance(error, UnicodeError | PermissionError) else OurFault(says)


class _HangUp(Exception):
    """The client wants to speak something else."""


class _Protocol(H11Protocol):
    """Without WebSocket, which nothing here speaks: the daemons leave its library out (p2pd.app.launch)."""

    async def _create_stream(self, request: Any) -> None:
        if any(
            name == b"upgrade" and value.strip().lower() == b"websocket" for name, value in request.headers
        ):
            raise _HangUp
        await super()._create_stream(request)


class _Connection:
    """One client. Stands where Hypercorn's `TCPServer` does: feeds its protocol, sends what that says."""

    def __init__(
        self,
        app: ASGIWrapper,
        config: Config,
        context: WorkerContext,
        stream: trio.SocketStream,
        times: _Times,
        kept: dict[_Connection, None],
    ) -> None:
        """`kept`: the connections that wait for another request, the longest first; it puts itself there."""
        self._kept = kept
        self._app = app
        self._config = config
        self._context = context
        self._stream = stream
        self._times = times
        self._send_lock = trio.Lock()
        self._idle_task = TrioSingleTask()
        self._life = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._feeding = trio.CancelScope()
        self._waiting = trio.CancelScope()
        self._is_ending = False

    async def run(self) -> None:
        async with self._stream:
            try:
                with self._life:
                    await self._converse()
            finally:
                self._kept.pop(self, None)
                until = self._reading.deadline - trio.current_time()
                await _part(self._stream, max(0.0, min(self._times.linger, until)))

    def retire(self) -> None:
        """End it, which waits for another request: at any time a server may, and clients ask anew."""
        self._kept.pop(self, None)
        self._waiting.deadline = trio.current_time()

    async def _converse(self) -> None:
        async with TaskGroup() as self._tasks:
            self._protocol = _Protocol(
                self._app,
                self._config,
                self._context,
                self._tasks,
                ConnectionState({}),
                False,
                _endpoint(self._stream.socket.getpeername),
                _endpoint(self._stream.socket.getsockname),
                self._take,
            )
            await self._idle_task.restart(self._tasks, self._close_when_idle)
            with self._reading:
                await self._read()
            # The client has left (or its time to leave is over): so has its request.
            await self._protocol.handle(Closed())
            self._life.cancel()

    async def _read(self) -> None:
        while True:
            try:
                data = await self._stream.receive_some(_RECEIVE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not self._is_ending:
                try:
                    with trio.CancelScope() as self._feeding:
                        await self._protocol.handle(RawData(bytes(data)))
                except (H2CProtocolRequiredError, H2ProtocolAssumedError, _HangUp):
                    return
            if not data:
                return

    async def _take(self, event: Event) -> None:
        """What the protocol wants done."""
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Closed):
            await self._end()
            await self._protocol.handle(Closed())
        elif isinstance(event, Updated):
            if event.idle:
                await self._idle_task.restart(self._tasks, self._close_when_idle)
                self._kept[self] = None
            else:
                self._kept.pop(self, None)
                await self._idle_task.stop()

    async def _send(self, data: bytes) -> None:
        async with self._send_lock:
            try:
                with trio.fail_after(self._times.write):
                    await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                self._life.cancel()

    async def _end(self) -> None:
        """Send our FIN, and let `_read` wait for the client's."""
        self._is_ending = True
        self._reading.deadline = min(self._reading.deadline, trio.current_time() + self._times.linger)
        # The protocol holds bytes back that came before the answer's end: nobody waits for them now.
        self._feeding.cancel()
        try:
            # An application that cancels itself at its end must not lose the FIN; nothing waits here.
            with trio.CancelScope(shield=True):
                await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            self._life.cancel()

    async def _close_when_idle(self) -> None:
        with trio.move_on_after(self._times.idle) as self._waiting:
            await self._context.terminated.wait()
            await trio.sleep(_LAST_CALL)
        await self._end()


def _endpoint(ask: Callable[[], object]) -> tuple[str, int] | None:
    """Host and port; None at a Unix socket, whose clients have no address, and of one that has left."""
    try:
        address = ask()
    except OSError:
        return None
    return (address[0], address[1]) if isinstance(address, tuple) else None


async def _handle(connection: _Connection) -> None:
    """Run one connection; whatever goes wrong in it stays in it."""
    try:
        await connection.run()
    except* Exception as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        log.error("connection failed unexpectedly", error=repr(error))  # noqa: TRY400 - one line a failure
