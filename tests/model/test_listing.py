"""What counts as a list of tags or referrers, and what is in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.model.listing import ListingKind, is_listing, referrers_of, tags_of


@pytest.mark.parametrize(
    ("body", "tags"),
    [
        (b'{"name":"a","tags":["1","2"]}', ["1", "2"]),
        (b'{"tags":[]}', []),
        (b'{"tags":null}', []),
        (b'{"name":"a"}', None),
        (b'{"tags":[1]}', None),
        (b'{"tags":{}}', None),
        (b'["1"]', None),
        (b"[" * 100_000, None),
    ],
)
def test_tags(body: bytes, tags: list[str] | None) -> None:
    assert tags_of(body) == tags
    assert is_listing(ListingKind.TAGS, body) == (tags is not None)


@pytest.mark.parametrize(
    ("body", "count"),
    [(b'{"manifests":[{},7]}', 2), (b'{"manifests":null}', None), (b"{}", None), (b"7", None)],
)
def test_referrers(body: bytes, count: int | None) -> None:
    found = referrers_of(body)
    assert (None if found is None else len(found)) == count
    assert is_listing(ListingKind.REFERRERS, body) == (count is not None)


@given(st.binary(), st.sampled_from(ListingKind))
def test_garbage_is_no_list(body: bytes, kind: ListingKind) -> None:
    assert not is_listing(kind, body)
