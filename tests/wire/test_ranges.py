"""Range headers, by the letter of RFC 9110 §14."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.wire.ranges import ByteRange, RangeNotSatisfiable, parse_range, unsatisfied_range


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-", 0, 100),
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=99-", 99, 100),
        ("bytes=90-1000", 90, 100),
        ("bytes=-1", 99, 100),
        ("bytes=-100", 0, 100),
        ("bytes=-101", 0, 100),
        ("BYTES= 5-6 ", 5, 7),
        ("bytes=0005-0006", 5, 7),
        ("bytes=0-" + "9" * 5000, 0, 100),
        ("bytes=-" + "9" * 5000, 0, 100),
    ],
)
def test_one_range(header: str, start: int, stop: int) -> None:
    assert parse_range(header, 100) == ByteRange(start, stop, 100)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-4",
        "bytes=1-2,4-5",
        "bytes=a-b",
        "bytes=1 -2",
        "bytes=+1-2",
        "bytes=0x1-2",
        "bytes=١-٢",  # noqa: RUF001 - digits, but not ASCII ones
        "items=0-5",
        "bytes=--5",
        "bytes=1-2-3",
    ],
)
def test_what_is_no_single_range_means_everything(header: str | None) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", f"bytes={'9' * 5000}-"])
def test_past_the_end(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 100)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-5", "bytes=7-9", None])
def test_an_empty_representation_has_no_ranges(header: str | None) -> None:
    assert parse_range(header, 0) is None


def test_content_range() -> None:
    assert ByteRange(10, 20, 100).content_range == "bytes 10-19/100"
    assert unsatisfied_range(100) == "bytes */100"


@given(st.integers(0, 2**60), st.integers(0, 2**60), st.integers(1, 2**60))
def test_clipped_to_the_size(first: int, last: int, size: int) -> None:
    try:
        found = parse_range(f"bytes={first}-{last}", size)
    except RangeNotSatisfiable:
        assert first >= size
        assert last >= first
        return
    if found is None:
        assert last < first
    else:
        assert (found.start, found.stop) == (first, min(last + 1, size))


@given(st.one_of(st.text(), st.from_regex(r"bytes=[0-9, \-]*", fullmatch=True)), st.integers(0, 1000))
def test_garbage_never_makes_another_error(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    assert found is None or 0 <= found.start < found.stop <= size
