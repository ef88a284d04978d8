"""One answer of the registry API on its way to a client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath

import trio
from starlette.datastructures import Headers
from starlette.types import Send

from p2pd.model.errors import P2pdError
from p2pd.ports.observer import RequestObserver
from p2pd.wire.ranges import ByteRange, RangeNotSatisfiable, parse_range, unsatisfied_range
from p2pd.wire.registry_errors import ApiError

__all__ = ["Response", "range_of", "where_raised"]

_LEFT = 499


class Response:
    """One answer being sent. Headers go out once, by `start`, after which `is_started`."""

    def __init__(self, send: Send, head_only: bool) -> None:
        self._send = send
        self._head_only = head_only
        self._lock = trio.Lock()
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._last_headers: Callable[[], Mapping[str, str]] = dict
        self.is_started = False
        self.began_at = trio.current_time()
        self.first_byte_at: float | None = None
        self.error: P2pdError | None = None

    def seen_by(self, observer: RequestObserver, kind: str) -> None:
        """Tell how it ended."""
        first = None if self.first_byte_at is None else self.first_byte_at - self.began_at
        observer.answered(kind, self._status if self.is_started else _LEFT, first, self.error)

    def prepare(
        self,
        status: int,
        headers: Mapping[str, str],
        last_headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`last_headers`: those that say how things are when they go, which may be seconds later."""
        self._status = status
        self._headers = _encoded(headers)
        self._last_headers = last_headers

    async def start(self) -> None:
        async with self._lock:
            if self.is_started:
                return
            self.is_started = True
            headers = [*self._headers, *_encoded(self._last_headers())]
            await self._send({"type": "http.response.start", "status": self._status, "headers": headers})

    async def body(self, data: bytes) -> None:
        if not self.is_started:
            await self.start()
        elif self._lock.locked():
            async with self._lock:
                pass
        if self.first_byte_at is None:
            self.first_byte_at = trio.current_time()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self.start()
        if self.first_byte_at is None:
            self.first_byte_at = trio.current_time()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def whole(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.prepare(status, {**headers, "Content-Length": str(len(body))})
        await self.start()
        if not self._head_only:
            await self.body(body)
        await self.end()


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(key.lower().encode(), value.encode("latin-1")) for key, value in headers.items()]


def range_of(headers: Headers, method: str, etag: str, size: int) -> ByteRange | None:
    """The range to answer with; Range means something on GET only, and once (RFC 9110 §14.2)."""
    ranges = headers.getlist("range")
    if method != "GET" or len(ranges) != 1 or headers.get("if-range", etag) != etag:
        return None
    try:
        return parse_range(ranges[0], size)
    except RangeNotSatisfiable as error:
        raise ApiError(416, "SIZE_INVALID", str(error), {"Content-Range": unsatisfied_range(size)}) from error


def where_raised(error: BaseException) -> str:
    """Where an unexpected error was raised, on one line: file:line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
