"""Which site a request is for: its nodes say so in a header. For the bookkeeping; nothing depends on it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from p2pd.app.config import SITE
from p2pd.io.seeder_client import SITE_HEADER
from p2pd.model.reference import Digest, Repository
from seeder.content import UsageSink

__all__ = ["noted_for_site", "with_site"]

_site: ContextVar[str] = ContextVar("site", default="")
"""Of the request that this task answers."""


def with_site(app: ASGIApp) -> ASGIApp:
    """`app`, remembering for each request which site asks; empty where that is not told or no name."""

    async def remembering(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            told = Headers(scope=scope).get(SITE_HEADER, "")
            _site.set(told if SITE.fullmatch(told) else "")
        await app(scope, receive, send)

    return remembering


def noted_for_site(note: Callable[[Digest, Repository, int, int, str], None]) -> UsageSink:
    """A sink that adds the site of the request at hand."""

    def sink(digest: Digest, repository: Repository, size: int, served: int) -> None:
        note(digest, repository, size, served, _site.get())

    return sink
