"""When nodes begin."""

from __future__ import annotations

import pytest

from benchmarks.arrival import TOGETHER, Arrival


def test_what_is_written_is_what_is_meant() -> None:
    assert Arrival.parse("together") == TOGETHER
    assert Arrival.parse("together").waves(3) == [[0.0, 0.0, 0.0]]
    assert Arrival.parse("rolling:0.5").waves(3) == [[0.0, 0.5, 1.0]]
    assert Arrival.parse("late:2").waves(3) == [[0.0], [0.0, 0.0]]


@pytest.mark.parametrize("text", ["together", "rolling:2", "rolling:0.25", "late:3"])
def test_it_is_shown_as_it_is_written(text: str) -> None:
    assert str(Arrival.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "late",
        "late:0",
        "late:-1",
        "late:x",
        "late:1.5",
        "rolling",
        "rolling:",
        "rolling:0",
        "rolling:nan",
        "rolling:inf",
        "rolling:-1",
        "together:1",
        "never",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Arrival.parse(text)


def test_someone_must_come_first() -> None:
    with pytest.raises(ValueError, match="at most 1 can be late"):
        Arrival(late=2).waves(2)
