from __future__ import annotations

import pytest

from p2pd.model.rate import UNLIMITED, Rate, RatePlan, RateWindow

NIGHT = RateWindow(22 * 60, 6 * 60, UNLIMITED)
NOON = RateWindow(12 * 60, 13 * 60, Rate(5.0))


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ("21:59", 9.0),
        ("22:00", UNLIMITED),
        ("00:00", UNLIMITED),
        ("05:59", UNLIMITED),
        ("06:00", 9.0),
        ("12:30", 5.0),
    ],
)
def test_windows_stand_for_the_limit(clock: str, expected: float) -> None:
    hour, minute = clock.split(":")
    assert RatePlan(Rate(9.0), (NIGHT, NOON)).at(int(hour) * 60 + int(minute)) == expected


def test_the_first_of_several_counts_and_equal_times_mean_all_day() -> None:
    assert RatePlan(Rate(9.0), (RateWindow(0, 0, Rate(1.0)), NIGHT)).at(23 * 60) == 1.0


def test_what_never_limits_is_known() -> None:
    assert RatePlan(UNLIMITED, (NIGHT,)).is_unlimited
    assert not RatePlan(UNLIMITED, (NOON,)).is_unlimited


def test_rates_are_shown_as_they_are_written() -> None:
    assert [str(Rate(bits / 8)) for bits in (20e6, 2.5e9, 64e3, 800)] == [
        "20 Mbit/s",
        "2.5 Gbit/s",
        "64 kbit/s",
        "0.8 kbit/s",
    ]
    assert str(NIGHT) == "22:00-06:00 = unlimited"
