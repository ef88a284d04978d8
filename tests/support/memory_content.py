"""A registry's content in memory, whose blobs stall, fail or lie on command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import trio

from p2pd.model.content import OCI_MANIFEST, Manifest
from p2pd.model.errors import NotFound
from p2pd.model.listing import Listing
from p2pd.model.reference import Digest, Repository, Tag

__all__ = ["MemoryBlob", "MemoryContent", "digest_of"]

T = TypeVar("T")


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


@dataclass
class MemoryBlob:
    """`fail_at`: offset at which `error` is raised, `failures` times.

    `stall_at`: offset at which bytes stop for ever. `end_at`: offset at which they just end.
    `excess`: what follows the last. `open_streams` counts generators that were begun and not closed.
    """

    data: bytes
    chunk: int = 64 * 1024
    error: Exception | None = None
    fail_at: int = 0
    failures: int = 1_000_000
    stall_at: int | None = None
    end_at: int | None = None
    excess: bytes = b""
    open_streams: int = 0

    @property
    def size(self) -> int:
        return len(self.data)

    async def chunks(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        self.open_streams += 1
        try:
            position = start
            while position < stop:
                await trio.lowlevel.checkpoint()
                end = min(position + self.chunk, stop)
                if self.error is not None and self.failures:
                    if position >= self.fail_at:
                        self.failures -= 1
                        raise self.error
                    end = min(end, self.fail_at)
                if self.stall_at is not None:
                    if position >= self.stall_at:
                        await trio.sleep_forever()
                    end = min(end, self.stall_at)
                if self.end_at is not None and position >= self.end_at:
                    return
                yield self.data[position:end] + (self.excess if end == stop else b"")
                position = end
        finally:
            self.open_streams -= 1


@dataclass
class MemoryContent:
    """`errors` maps a method's name to what it raises; `hanging` names methods that never answer."""

    blobs: dict[Digest, MemoryBlob] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)
    stale: bool = False
    calls: list[tuple[str, Repository, str]] = field(default_factory=list)

    def add_blob(self, data: bytes) -> tuple[Digest, MemoryBlob]:
        digest = digest_of(data)
        self.blobs[digest] = MemoryBlob(data)
        return digest, self.blobs[digest]

    def add_manifest(self, tag: str, body: bytes, media_type: str = OCI_MANIFEST) -> Manifest:
        manifest = Manifest.verified(body, None, media_type)
        manifest = replace(manifest, descriptor=replace(manifest.descriptor, media_type=media_type))
        self.manifests[tag] = self.manifests[str(manifest.descriptor.digest)] = manifest
        return manifest

    async def _enter(self, method: str, repository: Repository, detail: str) -> None:
        self.calls.append((method, repository, detail))
        await trio.lowlevel.checkpoint()
        if method in self.hanging:
            await trio.sleep_forever()
        if method in self.errors:
            raise self.errors[method]

    async def manifest(self, repository: Repository, reference: Digest | Tag) -> Manifest:
        await self._enter("manifest", repository, str(reference))
        return _found(self.manifests.get(str(reference)), reference)

    async def blob(self, repository: Repository, digest: Digest) -> MemoryBlob:
        await self._enter("blob", repository, str(digest))
        return _found(self.blobs.get(digest), digest)

    async def tags(self, repository: Repository, query: str) -> Listing:
        await self._enter("tags", repository, query)
        return Listing(json.dumps({"name": repository.name, "tags": ["1", "2"]}).encode(), self.stale)

    async def referrers(self, repository: Repository, digest: Digest, artifact_type: str | None) -> Listing:
        await self._enter("referrers", repository, f"{digest} {artifact_type}")
        return Listing(json.dumps({"schemaVersion": 2, "manifests": []}).encode(), self.stale)


def _found(value: T | None, name: object) -> T:
    if value is None:
        raise NotFound(f"{name} is not here")
    return value
