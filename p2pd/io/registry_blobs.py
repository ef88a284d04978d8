"""Bodies of blobs, sent as they come, by the rules of `p2pd.io.registry_app`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import structlog
import trio
from starlette.datastructures import Headers

from p2pd.io.registry_response import Response, range_of, where_raised
from p2pd.model.content import Holding
from p2pd.model.errors import OurFault, P2pdError, Unavailable, WrongContent, fresh
from p2pd.model.reference import Digest
from p2pd.ports.content import Blob
from p2pd.wire.ranges import ByteRange
from p2pd.wire.registry_api import BlobRequest
from p2pd.wire.response import HOLDING_HEADER

__all__ = ["BlobSender"]

log = structlog.get_logger()

_COOLING_LIMIT = 1024


class _Cooling:
    """Digests that answer 503 for a while. Bounded: the oldest entry makes room."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[Digest, tuple[float, P2pdError]] = {}

    def add(self, digest: Digest, error: P2pdError) -> None:
        self._until.pop(digest, None)
        while len(self._until) >= _COOLING_LIMIT:
            del self._until[next(iter(self._until))]
        self._until[digest] = (trio.current_time() + self._seconds, error)

    def check(self, digest: Digest) -> None:
        if digest not in self._until:
            return
        until, error = self._until[digest]
        if trio.current_time() < until:
            if isinstance(error, WrongContent):
                raise fresh(error)
            raise Unavailable(f"blob {digest} lost its last source just now; try another host, or later")
        del self._until[digest]


class BlobSender:
    """Sends blobs; one whose body ended short is refused for `cooldown` seconds.

    `stall`: the longest wait for the next chunk, in seconds, after which a body ends. `holding`: what
    clients are told of how much of a blob is here; None for nothing.
    """

    def __init__(self, stall: float, cooldown: float, holding: Callable[[Digest], Holding | None]) -> None:
        self._stall = stall
        self._holding = holding
        self._cooling = _Cooling(cooldown)

    def check(self, digest: Digest) -> None:
        """Raise P2pdError where the digest is refused."""
        self._cooling.check(digest)

    async def send(
        self,
        request: BlobRequest,
        blob: Blob,
        headers: Headers,
        method: str,
        response: Response,
        start_by: float,
    ) -> None:
        """The blob, or the range of it that the headers ask for. Headers of the answer go by `start_by`.

        Raises what `blob` does, P2pdError or another exception, while nothing was sent; afterwards it
        logs that the body ended short.
        """
        answer = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": str(request.digest),
            "ETag": f'"{request.digest}"',
            "Accept-Ranges": "bytes",
        }
        wanted = range_of(headers, method, answer["ETag"], blob.size)
        body = wanted or ByteRange(0, blob.size, blob.size)
        answer["Content-Length"] = str(body.stop - body.start)
        if wanted is not None:
            answer["Content-Range"] = wanted.content_range
        response.prepare(206 if wanted else 200, answer, lambda: self._told(request.digest))
        if method == "HEAD":
            await response.end()
        else:
            await self._stream(request, blob, body, response, start_by)

    def _told(self, digest: Digest) -> dict[str, str]:
        holding = self._holding(digest)
        return {} if holding is None else {HOLDING_HEADER: holding.value}

    async def _stream(
        self, request: BlobRequest, blob: Blob, body: ByteRange, response: Response, start_by: float
    ) -> None:
        """Headers go with the first chunk, so that a source which fails at once is still a 503."""
        async with trio.open_nursery() as nursery:

            async def start_in_time() -> None:
                await trio.sleep_until(start_by)
                await response.start()

            nursery.start_soon(start_in_time)
            failure: Exception | None = None
            try:
                await self._copy(request, blob, body, response)
            except Exception as error:
                failure = error  # raised outside: the nursery would wrap it in a group
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _copy(self, request: BlobRequest, blob: Blob, body: ByteRange, response: Response) -> None:
        began, sent = trio.current_time(), 0
        try:
            async with aclosing(blob.chunks(body.start, body.stop)) as chunks:
                while sent < body.stop - body.start:
                    chunk = await self._next(chunks)
                    if len(chunk) > body.stop - body.start - sent:
                        raise OurFault("more bytes came than were asked for")
                    sent += len(chunk)
                    await response.body(chunk)
            await response.end()
        except P2pdError as error:
            if not response.is_started:
                raise
            response.error = error
            self._cut(request, body, sent, began, error)
        except Exception as error:
            if not response.is_started:
                raise
            response.error = OurFault(f"{error!r} at {where_raised(error)}")
            self._cut(request, body, sent, began, response.error)

    async def _next(self, chunks: AsyncGenerator[bytes, None]) -> bytes:
        with trio.move_on_after(self._stall):
            try:
                return await anext(chunks)
            except StopAsyncIteration:
                raise OurFault("fewer bytes came than were asked for") from None
        raise Unavailable(f"no byte came for {self._stall:g} s")

    def _cut(self, request: BlobRequest, body: ByteRange, sent: int, began: float, error: P2pdError) -> None:
        # The answer is left unfinished: the server closes the connection, short of Content-Length.
        self._cooling.add(request.digest, error)
        is_grave = isinstance(error, OurFault | WrongContent)
        (log.error if is_grave else log.warning)(
            "blob body ended short",
            digest=str(request.digest),
            repository=str(request.repository),
            offset=body.start,
            bytes=sent,
            missing=body.stop - body.start - sent,
            seconds=round(trio.current_time() - began, 3),
            reason=str(error),
        )
