"""An Origin in memory that plays a script: one step an `open_blob`, the last one for ever."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import trio

from p2pd.model.content import Descriptor, Manifest
from p2pd.model.errors import NotFound, OriginFault, Unavailable, fresh
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.origin import BlobStream

Gate = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Step:
    """Refuse with `error`, or give chunks of `chunk` bytes every `pause` seconds.

    `cut`: break off after so many bytes. `whole`: ignore the range. `size`: lie about the size.
    """

    error: OriginFault | None = None
    cut: int | None = None
    whole: bool = False
    size: int | None = None
    chunk: int = 64 * 1024
    pause: float = 0.0
    body: bytes | None = None


@dataclass
class ScriptedOrigin:
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifests: dict[Digest | Tag, Manifest] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=lambda: [Step()])
    error: OriginFault | None = None
    gate: Gate = trio.lowlevel.checkpoint
    asked: list[tuple[int, int | None]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    async def _call(self, name: str) -> None:
        self.calls.append(name)
        await self.gate()
        if self.error is not None:
            raise fresh(self.error)

    async def resolve(self, repository: Repository, tag: Tag) -> Descriptor:
        await self._call("resolve")
        return self._manifest(tag).descriptor

    async def manifest(self, repository: Repository, reference: Digest | Tag) -> Manifest:
        await self._call("manifest")
        return self._manifest(reference)

    def _manifest(self, reference: Digest | Tag) -> Manifest:
        if reference not in self.manifests:
            raise NotFound(f"no manifest {reference}")
        return self.manifests[reference]

    async def blob_size(self, repository: Repository, digest: Digest) -> int:
        await self._call("blob_size")
        if digest not in self.blobs:
            raise NotFound(f"no blob {digest}")
        return len(self.blobs[digest])

    async def tags(self, repository: Repository, query: str) -> bytes:
        await self._call("tags")
        return b'{"tags": []}'

    async def referrers(self, repository: Repository, digest: Digest) -> bytes:
        await self._call("referrers")
        return b'{"manifests": []}'

    @asynccontextmanager
    async def open_blob(
        self, repository: Repository, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[BlobStream]:
        await self._call("open_blob")
        self.asked.append((start, stop))
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if step.error is not None:
            raise fresh(step.error)
        body = step.body if step.body is not None else self.blobs[digest]
        end = len(body) if stop is None or step.whole else stop
        first = 0 if step.whole else start
        async with aclosing(_chunks(body[first:end], step)) as chunks:
            yield BlobStream(len(body) if step.size is None else step.size, first, end, chunks)


async def _chunks(body: bytes, step: Step) -> AsyncGenerator[bytes, None]:
    end = len(body) if step.cut is None else step.cut
    for position in range(0, end, step.chunk):
        await trio.sleep(step.pause)
        yield body[position : min(position + step.chunk, end)]
    if end < len(body):
        raise Unavailable(f"broke off after {end} bytes")
