"""Who watches the registry API at work."""

from __future__ import annotations

from typing import Protocol

from p2pd.model.errors import P2pdError

__all__ = ["RequestObserver"]


class RequestObserver(Protocol):
    def answered(self, kind: str, code: int, first_byte: float | None, error: P2pdError | None) -> None:
        """A request of a client has ended.

        `kind`: "manifest", "tag", "blob", "tags", "referrers", "segment", "base", or "other" where it is none
        of these. `code`: the HTTP status, 499 where the client left before it. `first_byte`: seconds from the
        request to the first byte of its body (its headers, where it has none); None where none came. `error`:
        why it was refused, or its body cut.
        """
        ...
