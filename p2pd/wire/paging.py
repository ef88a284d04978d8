"""Pages of tags/list: OCI distribution-spec 1.1, "Listing Tags", and the links of RFC 8288 between them.

A mirror cannot pass a registry's link on: it leads to the registry. Registries page by the last name, which
anybody can continue from, or by a token of their own.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode, urlsplit

__all__ = ["is_by_name", "link_to_next", "next_query", "paging_of"]

_QUERY_LIMIT = 2048


def paging_of(query: str) -> tuple[int | None, str | None]:
    """`n` and `last` of a query that was checked."""
    fields = parse_qs(query)
    return int(fields["n"][0]) if "n" in fields else None, fields["last"][0] if "last" in fields else None


def next_query(url: str | None) -> str | None:
    """The query of the next page, from the target of a link; None where there is none that is fit."""
    try:
        query = urlsplit(url or "").query
    except ValueError:
        return None
    return query if query and len(query) <= _QUERY_LIMIT and query.isascii() and query.isprintable() else None


def is_by_name(query: str) -> bool:
    """Whether a registry pages by the last name."""
    return "last" in parse_qs(query)


def link_to_next(path: str, limit: int | None, tags: list[str], ns: str | None) -> str | None:
    """The link to what follows `tags`, which is a full page, as long as it is; else None."""
    if not limit or len(tags) != limit:
        return None
    fields = {"n": str(limit), "last": tags[-1]} | ({"ns": ns} if ns else {})
    return f'<{path}?{urlencode(fields)}>; rel="next"'
