from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.model.content import Holding
from p2pd.wire.response import ContentRange, content_length, content_range, holding, retry_after

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("99999999", 3600.0),
        (formatdate(NOW + 30, usegmt=True), 30.0),
        (formatdate(NOW - 30, usegmt=True), 0.0),
        (formatdate(NOW + 1e6, usegmt=True), 3600.0),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    assert retry_after(value, NOW) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 0-9/10", ContentRange(0, 10, 10)),
        ("Bytes 5-5/10", ContentRange(5, 6, 10)),
        ("bytes 0-10/10", None),
        ("bytes 6-5/10", None),
        ("bytes */10", None),
        ("bytes 0-9/*", None),
        ("items 0-9/10", None),
        (None, None),
    ],
)
def test_content_range(value: str | None, expected: ContentRange | None) -> None:
    assert content_range(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("12", 12), ("+1", None), ("1e3", None), ("1, 1", None), ("٣", None), (None, None)],
)
def test_content_length(value: str | None, expected: int | None) -> None:
    assert content_length(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("whole", Holding.WHOLE),
        (" Pulling ", Holding.PULLING),
        ("half", None),
        ("whole, pulling", None),
        ("", None),
        (None, None),
    ],
)
def test_holding(value: str | None, expected: Holding | None) -> None:
    assert holding(value) is expected


@given(st.text(max_size=100))
def test_garbage_never_raises_and_stays_in_bounds(value: str) -> None:
    content_length(value)
    holding(value)
    found = content_range(value)
    assert found is None or 0 <= found.start < found.stop <= found.size
    seconds = retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= 3600
