"""The read side of the OCI distribution API, as a client: what origins and seeders have in common.

A subclass says how a request reaches its server (`_send`); everything about paths, headers,
sizes, ranges and verification is here. Source: OCI distribution-spec 1.1.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import httpx

from p2pd.io.http import body_chunks, discard, read_body
from p2pd.model.content import MANIFEST_TYPES, OCI_INDEX, Descriptor, Manifest, StaleTag
from p2pd.model.errors import (
    Denied,
    InvalidReference,
    NotFound,
    OriginFault,
    RateLimited,
    Unavailable,
    WrongContent,
    whose,
)
from p2pd.model.json_text import json_object
from p2pd.model.layout import MANIFEST_LIMIT
from p2pd.model.listing import StaleListing, referrers_of, tags_of
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.origin import BlobStream
from p2pd.wire.paging import is_by_name, next_query, paging_of
from p2pd.wire.registry_errors import FAULT_HEADER, WRONG_CONTENT_CODES
from p2pd.wire.response import HOLDING_HEADER, content_length, content_range, holding, retry_after

__all__ = ["RegistryClient", "check", "fault_of"]

T = TypeVar("T")

_ACCEPT_MANIFESTS = {"Accept": ", ".join((*MANIFEST_TYPES, "*/*"))}
_NO_REFERRERS = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
_SHOWN = 200
_MOST_PAGES = 100


class RegistryClient(ABC):
    """Implements `p2pd.ports.origin.Origin` but for the way to the server."""

    @abstractmethod
    async def _send(
        self,
        method: str,
        repository: Repository,
        path: str,
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> httpx.Response:
        """The final answer, of whatever status, to `path` below /v2/<name>; the caller closes it."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections."""

    async def resolve(self, repository: Repository, tag: Tag) -> Descriptor:
        """See `Origin.resolve`."""
        response = await self._send("HEAD", repository, f"/manifests/{tag}", _ACCEPT_MANIFESTS)
        body_error = await discard(response)
        if response.status_code == 200:
            try:
                digest = Digest.parse(response.headers.get("docker-content-digest", ""))
            except InvalidReference:
                digest = None
            size = content_length(response.headers.get("content-length"))
            media_type = response.headers.get("content-type", "").split(";")[0].strip()
            if digest is not None and size is not None and media_type:
                if size > MANIFEST_LIMIT:
                    raise WrongContent(f"{repository}:{tag} has {size} bytes, over {MANIFEST_LIMIT}")
                found = Descriptor(digest, size, media_type)
                if response.headers.get("p2pd-stale") == "true":
                    raise StaleTag(f"{response.url.host} only remembers {repository}:{tag}", found)
                return found
        elif response.status_code in {401, 403, 429} or response.status_code >= 500:
            raise fault_of(response, body_error, f"{repository}:{tag}")
        # Some registries know no HEAD, and say so by 404 or 405, or answer it without the digest.
        return (await self.manifest(repository, tag)).descriptor

    async def manifest(self, repository: Repository, reference: Digest | Tag) -> Manifest:
        """See `Origin.manifest`."""
        what = f"{repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"
        response = await self._send("GET", repository, f"/manifests/{reference}", _ACCEPT_MANIFESTS)
        await check(response, {200}, what)
        body = await read_body(response, MANIFEST_LIMIT)
        expected = reference if isinstance(reference, Digest) else None
        return Manifest.verified(body, expected, response.headers.get("content-type"))

    async def blob_size(self, repository: Repository, digest: Digest) -> int:
        """See `Origin.blob_size`."""
        response = await self._send("HEAD", repository, f"/blobs/{digest}")
        body = await discard(response)
        if response.status_code == 200:
            size = content_length(response.headers.get("content-length"))
            if size is not None:
                return size
        elif response.status_code not in {400, 403, 405, 501}:
            raise fault_of(response, body, f"{repository}@{digest}")
        # No HEAD here, or the store behind a redirect signs its URLs for GET alone.
        async with self.open_blob(repository, digest, 0, 1) as stream:
            return stream.size

    @asynccontextmanager
    async def open_blob(
        self, repository: Repository, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[BlobStream]:
        """See `Origin.open_blob`. `stop` of the stream is lower than asked for if the server gives less."""
        headers = {}
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-" + ("" if stop is None else str(stop - 1))
        response = await self._send("GET", repository, f"/blobs/{digest}", headers)
        await check(response, {200, 206} if headers else {200}, f"{repository}@{digest}")
        try:
            size, first, end = _extent(response, start, stop)
            async with aclosing(_exactly(response, end - first)) as chunks:
                yield BlobStream(size, first, end, chunks, holding(response.headers.get(HOLDING_HEADER)))
        finally:
            await response.aclose()  # a generator that nobody began to read closes nothing

    async def tags(self, repository: Repository, query: str) -> bytes:
        """See `Origin.tags`."""
        limit, last = paging_of(query)
        pages_by_name = False
        what, found, asked, size = f"tags of {repository}", list[str](), set[str](), 0
        while len(asked) < _MOST_PAGES and size <= MANIFEST_LIMIT:
            asked.add(query)
            response = await self._send("GET", repository, "/tags/list", query=query)
            await check(response, {200}, what)
            following = next_query(response.links.get("next", {}).get("url"))
            body, tags = await _listing(response, tags_of, what)
            found += tags
            size += len(body)
            pages_by_name |= following is not None and is_by_name(following)
            is_full = pages_by_name and limit is not None and len(found) >= limit
            if following is None or is_full or following in asked:
                break
            query = following
        else:
            raise WrongContent(f"{repository} has too many tags: more than {len(asked)} pages, {size} bytes")
        if len(asked) == 1 and last not in found:
            return body
        if last in found:  # a registry that does not know it begins anew
            found = found[found.index(last) + 1 :]
        return json.dumps(
            {"name": repository.name, "tags": found[:limit] if pages_by_name else found}
        ).encode()

    async def referrers(self, repository: Repository, digest: Digest) -> bytes:
        """See `Origin.referrers`."""
        response = await self._send("GET", repository, f"/referrers/{digest}", {"Accept": OCI_INDEX})
        if response.status_code in {400, 404, 405}:
            await discard(response)
            return await self._referrers_by_tag(repository, digest)
        await check(response, {200}, f"referrers of {repository}@{digest}")
        body, _ = await _listing(response, referrers_of, f"referrers of {digest}")
        return body

    async def _referrers_by_tag(self, repository: Repository, digest: Digest) -> bytes:
        """Registries from before OCI 1.1 keep the index under a tag ("referrers tag schema")."""
        try:
            found = await self.manifest(repository, Tag(f"sha256-{digest.hex}"))
        except NotFound:
            return _NO_REFERRERS
        return found.body if found.descriptor.media_type == OCI_INDEX else _NO_REFERRERS


async def check(response: httpx.Response, accepted: set[int], what: str) -> None:
    """Raise, closing the response, unless its status is accepted and its body is not encoded."""
    if response.status_code not in accepted:
        raise fault_of(response, await discard(response), what)
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        await response.aclose()
        raise Unavailable(f"{response.url.host} sends {what} compressed although it was asked not to")


async def _listing(
    response: httpx.Response, entries_of: Callable[[bytes], list[T] | None], what: str
) -> tuple[bytes, list[T]]:
    """The body, and the entries that are in it."""
    body = await read_body(response, MANIFEST_LIMIT)
    entries = entries_of(body)
    if entries is None:
        raise WrongContent(f"{response.url.host} answers {what} with something else")
    if response.headers.get("p2pd-stale") == "true":
        raise StaleListing(f"{response.url.host} only remembers {what}", body)
    return body, entries


def fault_of(response: httpx.Response, body: bytes, what: str) -> OriginFault:
    """The error that an answer of another status than hoped for stands for."""
    fault = _fault_of(response, body, what)
    fault.beyond_seeder = response.headers.get(FAULT_HEADER) == whose(fault)
    return fault


def _fault_of(response: httpx.Response, body: bytes, what: str) -> OriginFault:
    host, status = response.url.host, response.status_code
    code, message = _told(body)
    reason = f"HTTP {status}" + (f", {message}" if message else "")
    told_by_seeder = response.headers.get(FAULT_HEADER) == "origin"
    waits = response.headers.get("retry-after")
    # A HEAD has no body and so no code; of a seeder's answers only this one says when to come again.
    if status == 429 or (
        status == 503 and (code == "TOOMANYREQUESTS" or (told_by_seeder and waits is not None))
    ):
        after = retry_after(waits, time.time())
        return RateLimited(f"{host} limits our requests, {what} has to wait ({reason})", after)
    if status in {404, 410}:
        return NotFound(f"{host} has no {what} ({reason})")
    if status == 502 and (told_by_seeder or code in WRONG_CONTENT_CODES):
        return WrongContent(f"{host} had {what} from its upstream with wrong bytes ({reason})")
    if status == 416:
        return WrongContent(f"{host} says that {what} is shorter than it is ({reason})")
    if 400 <= status < 500 and status != 408:
        return Denied(f"{host} refuses {what} ({reason})")
    return Unavailable(f"{host} cannot give {what} now ({reason})")


def _told(body: bytes) -> tuple[str, str]:
    """Code and message of the first error in an OCI error body, fit to be shown; empty when there is none."""
    errors = json_object(body).get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return "", ""
    code, message = first.get("code"), first.get("message")
    text = message if isinstance(message, str) else ""
    shown = "".join(char if char.isprintable() else " " for char in text[:_SHOWN]).strip()
    return code if isinstance(code, str) else "", shown


def _extent(response: httpx.Response, start: int, stop: int | None) -> tuple[int, int, int]:
    """Size of the blob and the bytes [first, end) of it that this answer holds."""
    host, length = response.url.host, content_length(response.headers.get("content-length"))
    if response.status_code == 200:
        if length is None:
            raise Unavailable(f"{host} does not tell how large the blob is")
        return length, 0, length
    told = content_range(response.headers.get("content-range"))
    if told is None or (length is not None and length != told.stop - told.start):
        raise Unavailable(f"{host} answers a range with a wrong Content-Range or Content-Length")
    if told.start != start or told.stop > (told.size if stop is None else stop):
        raise Unavailable(f"{host} answers with another range than it was asked for")
    return told.size, told.start, told.stop


async def _exactly(response: httpx.Response, expected: int) -> AsyncGenerator[bytes, None]:
    received = 0
    async with aclosing(body_chunks(response)) as chunks:
        async for chunk in chunks:
            received += len(chunk)
            if received > expected:
                raise Unavailable(f"{response.url.host} sends more than the {expected} bytes it promised")
            yield chunk
    if received < expected:
        raise Unavailable(f"{response.url.host} broke off after {received} of {expected} bytes")
