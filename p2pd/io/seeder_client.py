"""A seeder, asked over the WAN: the same API as a registry, and the swarm metadata."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import httpx

from p2pd.io.http import HttpPool, Timeouts, discard, read_body
from p2pd.io.registry_client import RegistryClient, check
from p2pd.model.content import Holding
from p2pd.model.errors import WrongContent
from p2pd.model.layout import SHA1_BYTES, Layout, SegmentMeta
from p2pd.model.reference import Digest, Repository
from p2pd.ports.origin import SegmentAnswer
from p2pd.wire.response import HOLDING_HEADER, holding

__all__ = ["SITE_HEADER", "SeederClient"]

SITE_HEADER = "P2pd-Site"

SEGMENT_WAIT = 20.0
"""Seconds a seeder holds a question for metadata back while it is itself still pulling the bytes."""


class SeederClient(RegistryClient):
    """`p2pd.ports.origin.SeederOrigin` over HTTP. `url` is scheme, host and port; no login is sent.

    `site` is told with each request, so that the seeder can say whom it served.

    Raises ConfigError when `ca_file` cannot be used.
    """

    def __init__(
        self, url: str, ca_file: str | None = None, timeouts: Timeouts | None = None, site: str = ""
    ) -> None:
        limits = timeouts or Timeouts()
        self._url = url.rstrip("/")
        self._who = {SITE_HEADER: site} if site else {}
        self._pool = HttpPool(ca_file, limits)
        self._patient_pool = HttpPool(
            ca_file, Timeouts(limits.connect, limits.headers + SEGMENT_WAIT, limits.headers + SEGMENT_WAIT)
        )

    async def aclose(self) -> None:
        await self._pool.aclose()
        await self._patient_pool.aclose()

    async def segment(
        self, repository: Repository, digest: Digest, size: int, index: int, *, is_patient: bool = True
    ) -> SegmentAnswer:
        """See `SeederOrigin.segment`. A patient question is answered after SEGMENT_WAIT s: ask again."""
        what = f"the hashes of segment {index} of {digest}"
        path = f"/p2pd/v1/segments/{repository.name}/{digest}/{index}"
        query = f"size={size}&wait={SEGMENT_WAIT if is_patient else 0:.0f}"
        # Patiently in any case: a seeder that does not know `wait` holds every question back.
        response = await self._patient_pool.send("GET", self._at(path, repository, query), self._who)
        await check(response, {200, 202}, what)
        if response.status_code == 202:
            await discard(response)
            return SegmentAnswer(None, Holding.PULLING)
        limit = SHA1_BYTES * Layout(size).stripes_per_segment
        meta = SegmentMeta(digest, size, index, await read_body(response, limit))
        if not meta.is_consistent:
            raise WrongContent(f"{response.url.host} sends {what} in a wrong number")
        return SegmentAnswer(meta, holding(response.headers.get(HOLDING_HEADER)))

    async def _send(
        self,
        method: str,
        repository: Repository,
        path: str,
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> httpx.Response:
        # A redirect is no answer of a seeder; it is reported like any other wrong status.
        url = self._at(f"/v2/{repository.name}{path}", repository, query)
        return await self._pool.send(method, url, {**self._who, **(headers or {})})

    def _at(self, path: str, repository: Repository, query: str) -> httpx.URL:
        namespace = f"ns={quote(repository.registry, safe='')}"
        return httpx.URL(f"{self._url}{path}?{namespace}" + (f"&{query}" if query else ""))
