import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pd.decide.bits import mask_of
from p2pd.decide.pace import Pace, Since


def settled(seconds: float) -> Pace:
    """All stripes took so long."""
    pace = Pace(0.0)
    for _ in range(60):
        pace.took(seconds)
    return pace


def test_patience_is_three_times_what_a_stripe_takes() -> None:
    assert settled(4.0).patience == pytest.approx(12.0)
    pace = Pace(0.0)
    assert pace.patience == 21.0  # nothing is known: less than a client waits
    pace.took(4.0)
    assert pace.patience == 16.5
    pace.took(9.0)
    assert pace.patience == 21.75


def test_the_first_that_end_are_not_what_a_stripe_takes() -> None:
    pace = Pace(0.0)
    for at_most in (12.0, 8.0, 6.0):
        pace.took(1.0)
        assert pace.patience == pytest.approx(at_most, rel=0.2)
    for _ in range(20):
        pace.took(1.0)
    assert pace.patience == 3.5


def test_patience_grows_where_stripes_take_unequal_times() -> None:
    uneven = Pace(0.0)
    for i in range(40):
        uneven.took(2.0 if i % 4 else 18.0)
    assert settled(6.0).patience == pytest.approx(18.0)
    assert 25.0 < uneven.patience < 40.0, "of these one in four would be fetched twice"


def test_patience_has_bounds() -> None:
    assert settled(0.01).patience == 3.5
    assert settled(500.0).patience == 60.0


def test_a_request_is_overdue_by_the_pace_of_the_site() -> None:
    pace = Pace(0.0)
    for i in range(1, 400):
        pace.came(1 << i, i * 4.0)
    assert pace.overdue == pytest.approx(2 * 3 * 4.0)
    for i in range(400, 1200):
        pace.came(1 << i, 1600.0 + i * 0.01)
    assert pace.overdue == 3.5


@pytest.mark.parametrize(("seconds", "ahead"), [(0.001, 64), (0.1, 15), (0.5, 3), (8.0, 3)])
def test_the_site_looks_about_a_second_and_a_half_ahead(seconds: float, ahead: int) -> None:
    pace = Pace(0.0)
    for i in range(1, 400):
        pace.came(1 << i, i * seconds)
    assert pace.ahead == ahead


def test_a_burst_is_not_a_rate() -> None:
    pace = Pace(0.0)
    for burst in range(1, 30):
        for i in range(12):
            pace.came(1 << (burst * 12 + i), burst * 1.2 + i * 1e-6)
    assert pace.seconds == pytest.approx(0.1, rel=0.3)


def test_the_clock_stands_still_while_nothing_comes() -> None:
    pace = Pace(0.0)
    for i in range(1, 200):
        pace.came(1 << i, i * 0.1)
    at = pace.clock(20.0)
    assert pace.clock(20.4) == pytest.approx(at + 0.4)
    assert pace.clock(50.0) == pace.clock(500.0) < at + 1.0


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 64)), max_size=50))
def test_the_clock_never_goes_back_nor_faster_than_time(steps: list[tuple[float, int]]) -> None:
    pace, now = Pace(0.0), 0.0
    for passes, stripes in steps:
        before = pace.clock(now)
        now += passes
        assert before <= pace.clock(now) <= before + passes + 1e-6
        pace.came(mask_of(range(stripes)), now)
        assert pace.clock(now) >= before
        assert pace.seconds > 0


def test_what_a_higher_stripe_passed_is_late_by_the_clock() -> None:
    pace = settled(1.0)
    awaited = pace.since(0.0)
    for i in range(10, 100):
        pace.came(1 << i, (i - 9) * 0.1)

    def late(stripe: int, since: Since = awaited) -> int:
        return pace.lateness(stripe, since, 9.0, lowest=False, clocked=True)[1]

    assert late(5) == 2  # passed at 0.1 s, 8.9 s ago, at a patience of 3.5 s
    assert late(60) == 1  # passed at 5.2 s
    assert late(99) == 0  # nothing passed it yet
    assert late(5, Since(7.0, 7.0)) == 0
    assert pace.lateness(5, awaited, 9.0, lowest=False, clocked=False)[1] == 0


def test_the_lowest_is_late_when_nothing_comes() -> None:
    pace = settled(2.0)
    pace.came(1 << 9, 2.0)
    awaited = Since(0.0, 0.0)
    assert pace.lateness(0, awaited, 7.9, lowest=True, clocked=False)[1] == 0
    assert pace.lateness(0, awaited, 8.1, lowest=True, clocked=False)[1] == 1
    assert pace.lateness(0, awaited, 14.1, lowest=True, clocked=False)[1] == 2


def test_a_pause_is_not_the_pace() -> None:
    pace = Pace(0.0)
    for i in range(1, 400):
        pace.came(1 << i, i * 0.1)
    before = pace.seconds
    pace.came(1 << 400, 5000.0)
    assert before < pace.seconds < 3 * before


def test_a_time_before_the_last_stripe_came_does_not_turn_the_clock_back() -> None:
    pace = Pace(0.0)
    pace.came(1, 10.0)
    assert pace.clock(9.0) == pace.clock(10.0)


@given(st.floats(0, 100), st.floats(0, 500), st.booleans(), st.booleans())
@example(at=8.411301793800773, waited=120.0, lowest=False, clocked=False)
def test_a_stripe_is_looked_at_again_when_it_may_be_later_by_one(
    at: float, waited: float, lowest: bool, clocked: bool
) -> None:
    pace = Pace(0.0)
    pace.took(4.0)
    now = at + waited
    again, late = pace.lateness(0, Since(at, at), now, lowest=lowest, clocked=clocked)
    assert 0 <= late <= waited / pace.patience + 1e-6
    assert now <= again <= now + pace.patience + 1e-6
    periods = (again - at) / pace.patience
    assert periods == pytest.approx(round(periods), abs=1e-6)


def test_the_lowest_is_late_by_the_clock_too() -> None:
    pace = settled(1.0)
    for i in range(10, 200):
        pace.came(1 << i, (i - 9) * 0.1)
    awaited = Since(0.0, 0.0)
    late = pace.lateness(0, awaited, 19.0, lowest=False, clocked=True)[1]
    assert late > 1
    assert pace.lateness(0, awaited, 19.0, lowest=True, clocked=True)[1] == late
