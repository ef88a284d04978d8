import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.decide.retry import RetryPolicy, retry_delay
from p2pd.model.errors import Denied, NotFound, OriginFault, RateLimited, Unavailable, WrongContent

POLICY = RetryPolicy(failures=5, first=1.0, longest=4.0, patience=30.0, longest_retry_after=20.0)


@pytest.mark.parametrize("error", [NotFound("x"), Denied("x"), WrongContent("x")])
def test_what_another_try_cannot_help_is_given_up(error: OriginFault) -> None:
    assert retry_delay(POLICY, error, 1, 0.0, 0.0) is None


def test_delays_double_up_to_the_longest_and_end() -> None:
    delays = [retry_delay(POLICY, Unavailable("x"), failures, 0.0, 0.0) for failures in range(1, 6)]
    assert delays == [0.5, 1.0, 2.0, 2.0, None]


def test_jitter_spreads_between_half_and_whole() -> None:
    assert retry_delay(POLICY, Unavailable("x"), 1, 0.0, 0.999) == pytest.approx(1.0, abs=0.001)


def test_retry_after_is_the_least_wait() -> None:
    assert retry_delay(POLICY, RateLimited("x", 7.0), 1, 0.0, 0.0) == 7.25
    assert retry_delay(POLICY, RateLimited("x"), 1, 0.0, 0.0) == 0.5
    assert retry_delay(POLICY, RateLimited("x", 20.0), 1, 0.0, 0.0) == 20.25
    assert retry_delay(POLICY, RateLimited("x", 21.0), 1, 0.0, 0.0) is None


def test_patience_ends_with_the_next_try_beyond_it() -> None:
    assert retry_delay(POLICY, Unavailable("x"), 1, 29.4, 0.0) == 0.5
    assert retry_delay(POLICY, Unavailable("x"), 1, 29.5, 0.0) is None


@given(
    st.integers(1, 10_000),
    st.floats(0, 100),
    st.floats(0, 1, exclude_max=True),
    st.one_of(st.none(), st.floats(0, 3600)),
)
def test_a_delay_is_always_bounded(failures: int, since: float, jitter: float, told: float | None) -> None:
    delay = retry_delay(RetryPolicy(failures=10_001), RateLimited("x", told), failures, since, jitter)
    assert delay is None or 0 < delay < 60
