from hypothesis import given
from hypothesis import strategies as st

from p2pd.decide.health import Reach, SourceHealth, Turn


def test_pauses_double_up_to_thirty_seconds() -> None:
    health, now, pauses = SourceHealth(), 100.0, []
    for _ in range(7):
        assert health.is_up(now)
        health.failed(now)
        began = now
        while not health.is_up(now):
            now += 0.5
        pauses.append(now - began)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_failures_at_the_same_time_count_once() -> None:
    health = SourceHealth()
    assert [health.failed(0.0) for _ in range(20)] == [True] + 19 * [False]
    assert health.is_up(1.0)


def test_only_the_first_failure_is_a_step_down_and_the_first_success_a_step_up() -> None:
    health = SourceHealth()
    assert not health.succeeded()
    assert health.failed(0.0)
    assert not health.failed(1.0)
    assert not health.is_up(2.9)
    assert health.succeeded()
    assert health.is_up(1.1)
    assert not health.succeeded()
    assert health.failed(2.0)
    assert health.is_up(3.0)


def test_a_source_is_left_alone_as_long_as_it_asks_but_not_for_ever() -> None:
    health = SourceHealth()
    health.failed(0.0, retry_after=12.0)
    assert not health.is_up(11.9)
    assert health.is_up(12.0)
    health.failed(12.0, retry_after=86_400.0)
    assert health.is_up(42.0)


def test_a_short_retry_after_does_not_shorten_the_pause() -> None:
    health = SourceHealth()
    health.failed(0.0, retry_after=0.0)
    assert not health.is_up(0.9)


@given(
    st.lists(st.tuples(st.floats(0, 50), st.booleans(), st.one_of(st.none(), st.floats(0, 1e6))), max_size=40)
)
def test_every_source_is_tried_again_within_thirty_seconds(
    steps: list[tuple[float, bool, float | None]],
) -> None:
    health, now = SourceHealth(), 0.0
    for passes, succeeds, retry_after in steps:
        now += passes
        if succeeds:
            health.succeeded()
            assert health.is_up(now)
        else:
            health.failed(now, retry_after)
        assert health.is_up(now + 30.001)


def test_a_dead_upstream_leaves_its_source_and_the_others_up() -> None:
    reach = Reach()
    assert reach.failed("a", 0.0, beyond=True) == [Turn("a", False)]
    assert not reach.is_up("a", 0.5)
    assert reach.is_up("b", 0.5)
    assert reach.succeeded("b") == []
    assert reach.succeeded("a") == [Turn("a", True)]
    assert reach.is_up("a", 0.5)


def test_a_dead_source_takes_all_its_upstreams_along() -> None:
    reach = Reach()
    assert reach.failed("a", 0.0, beyond=False) == [Turn(None, False)]
    assert reach.failed("b", 0.1, beyond=False) == []
    assert not reach.is_up("b", 0.5)
    assert reach.answered() == [Turn(None, True)]
    assert reach.is_up("a", 0.5)


def test_word_of_a_dead_upstream_is_a_sign_of_life() -> None:
    reach = Reach()
    reach.failed("a", 0.0, beyond=False)
    assert reach.failed("a", 1.0, beyond=True) == [Turn(None, True), Turn("a", False)]
    assert reach.failed("a", 1.0, beyond=True) == []
    assert reach.is_up("b", 1.0)


def test_a_source_that_is_down_for_ever_is_still_tried_every_thirty_seconds() -> None:
    health, now = SourceHealth(), 0.0
    for _ in range(1500):
        health.failed(now)
        assert not health.is_up(now)
        now += 30.0
        assert health.is_up(now)
    assert health.succeeded()


def test_who_is_to_be_tried_again_is_not_well_yet() -> None:
    health = SourceHealth()
    assert health.is_well
    health.failed(0.0)
    assert health.is_up(5.0)
    assert not health.is_well
    health.succeeded()
    assert health.is_well


def test_a_source_is_well_while_only_what_lies_behind_it_fails() -> None:
    reach = Reach()
    for upstream in ("quay", "docker"):
        reach.failed(upstream, 0.0, beyond=True)
    assert reach.is_well
    assert reach.upstreams_down() == ["docker", "quay"]
    reach.succeeded("quay")
    assert reach.upstreams_down() == ["docker"]
    reach.failed("docker", 9.0, beyond=False)
    assert not reach.is_well


def test_an_upstream_is_left_alone_as_long_as_it_asks() -> None:
    reach = Reach()
    reach.failed("a", 0.0, 12.0, beyond=True)
    assert not reach.is_up("a", 11.9)
    assert reach.is_up("a", 12.0)
    reach.failed("a", 20.0, 12.0, beyond=False)
    assert not reach.is_up("b", 31.9)
    assert reach.is_up("b", 32.0)
