from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.decide.budget import BURST, Budget
from p2pd.model.rate import UNLIMITED


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 3)), min_size=1, max_size=50), st.floats(1e3, 1e8)
)
def test_no_span_of_time_passes_more_than_its_share(uses: list[tuple[int, float]], rate: float) -> None:
    budget, now, passed = Budget(), 0.0, 0
    for count, pause in uses:
        now += pause
        now += budget.spend(count, rate, now)
        passed += count
        assert passed <= rate * (now + BURST) * 1.001 + 1


def test_users_share_one_rate() -> None:
    budget = Budget()
    budget.spend(25, 100.0, 10.0)  # what a burst allows
    assert [budget.spend(100, 100.0, 10.0) for _ in range(3)] == pytest.approx([1.0, 2.0, 3.0])


def test_no_debt_survives_an_unlimited_time() -> None:
    budget = Budget()
    assert budget.spend(1000, 1.0, 0.0) > 900
    assert budget.spend(10**9, UNLIMITED, 1.0) == 0
    assert budget.spend(0, 1.0, 2.0) == 0
