import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.wire.paging import is_by_name, link_to_next, next_query, paging_of


def test_the_paging_of_a_query() -> None:
    assert paging_of("") == (None, None)
    assert paging_of("n=5&last=v1") == (5, "v1")


@pytest.mark.parametrize(
    ("url", "query"),
    [
        ("/v2/app/tags/list?n=5&last=v1", "n=5&last=v1"),
        ("https://registry.example/v2/app/tags/list?next_page=gAAA", "next_page=gAAA"),
        (None, None),
        ("", None),
        ("/v2/app/tags/list", None),
        ("http://[", None),
        ("/v2/?last=" + "x" * 2048, None),
        ("/v2/?last=\u00e9", None),
    ],
)
def test_where_a_link_leads(url: str | None, query: str | None) -> None:
    assert next_query(url) == query


@given(st.text(max_size=100))
def test_no_link_does_harm(url: str) -> None:
    query = next_query(url)
    assert query is None or query.isascii()


def test_who_pages_by_name() -> None:
    assert is_by_name("n=5&last=v1")
    assert not is_by_name("next_page=gAAA")


def test_a_full_page_leads_on() -> None:
    assert link_to_next("/v2/a/tags/list", 2, ["x", "y"], None) == '</v2/a/tags/list?n=2&last=y>; rel="next"'
    assert link_to_next("/v2/a/tags/list", 1, ["x"], "r:5") == (
        '</v2/a/tags/list?n=1&last=x&ns=r%3A5>; rel="next"'
    )
    for limit, tags in ((3, ["x", "y"]), (None, ["x"]), (0, [])):
        assert link_to_next("/v2/a/tags/list", limit, tags, None) is None
