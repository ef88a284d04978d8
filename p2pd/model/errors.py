"""Errors, by whose fault they are.

One root, `P2pdError`; below it our fault, a peer's fault, the origin's fault, the user's
mistake. `str(error)` is one line for a person: what failed, why, what to do next. Adapters
raise these (`raise X(...) from foreign`); nothing above `p2pd.io` sees a foreign exception.
"""

from __future__ import annotations

import copy

__all__ = [
    "P2pdError",
    "OurFault",
    "StoreError",
    "StoreFull",
    "PeerFault",
    "PeerProtocolError",
    "PeerUnavailable",
    "OriginFault",
    "NotFound",
    "Denied",
    "RateLimited",
    "Stale",
    "Unavailable",
    "WrongContent",
    "UserMistake",
    "ConfigError",
    "InvalidReference",
    "NotRunning",
    "fresh",
    "whose",
]


class P2pdError(Exception):
    """Root of every error p2pd raises on purpose."""


def fresh(error: P2pdError) -> P2pdError:
    """A new instance that says the same: one raised in several tasks would pile up their tracebacks."""
    again = copy.copy(error)
    again.__cause__ = error
    return again


class OurFault(P2pdError):
    """This node's own disk, memory or code failed."""


class StoreError(OurFault):
    """The content store could not read or write."""


class StoreFull(StoreError):
    """The disk, or the budget given to the store, has no room."""


class PeerFault(P2pdError):
    """Another node of the site failed or lied."""


class PeerProtocolError(PeerFault):
    """A peer sent something that is not the protocol: malformed, too large, unknown version."""


class PeerUnavailable(PeerFault):
    """A peer refused, vanished or did not answer in time."""


class OriginFault(P2pdError):
    """A seeder or registry over the WAN failed, refused or lied.

    `beyond_seeder`: a seeder answered, and this is what it told of its own upstream.
    """

    beyond_seeder = False


class NotFound(OriginFault):
    """The name, manifest or blob is not there (HTTP 404)."""


class Denied(OriginFault):
    """The origin wants other credentials, or the configuration does not allow it (HTTP 401, 403)."""


class RateLimited(OriginFault):
    """The origin asked for less (HTTP 429). `retry_after` is in seconds, None when not told."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(OriginFault):
    """No answer, a broken answer, or HTTP 5xx: worth another try later or elsewhere."""


class Stale(OriginFault):
    """A seeder could not ask the origin, and tells what it remembers."""


class WrongContent(OriginFault):
    """Bytes came whole but are not what their digest or length says."""


class UserMistake(P2pdError):
    """The request or the configuration is wrong; repeating it cannot help."""


class ConfigError(UserMistake):
    """The configuration file is wrong; the message names file, key and what is allowed."""


class InvalidReference(UserMistake):
    """A digest, repository name, tag, registry or range is malformed."""


class NotRunning(P2pdError):
    """A command found no daemon at its admin socket, or may not talk to it."""


def whose(error: BaseException) -> str:
    """Whose fault an error is, in one word: "origin", "peer", "user" or "ours"."""
    for kind, word in ((OriginFault, "origin"), (PeerFault, "peer"), (UserMistake, "user")):
        if isinstance(error, kind):
            return word
    return "ours"
