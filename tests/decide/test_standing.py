from p2pd.decide.standing import Spread, Standing


def test_who_steps_back_again_stays_away_for_longer_until_that_is_long_ago() -> None:
    standing = Standing()
    assert not standing.is_back(0.0)
    standing.step_back(0.0)
    standing.step_back(10.0)
    assert standing.is_back(19.9)
    assert not standing.is_back(20.0)
    standing.step_back(30.0)
    assert standing.is_back(69.9)
    assert not standing.is_back(70.0)
    for now in (100.0, 300.0, 700.0):
        standing.step_back(now)
    assert standing.is_back(1019.9)
    assert not standing.is_back(1020.0)
    standing.step_back(1621.0)
    assert not standing.is_back(1641.0)


def compared(usual: float) -> Spread:
    spread = Spread()
    spread.brought(0b11, 0.0, is_mine=False)
    spread.reached(0b11, usual)
    return spread


def test_an_uplink_is_slow_in_comparison() -> None:
    for usual, limit in ((0.2, 2.0), (2.0, 8.0)):
        spread = compared(usual)
        spread.brought(0b100, 10.0, is_mine=True)
        assert not spread.is_slow(10.0 + limit)
        assert spread.is_slow(10.1 + limit)
        spread.reached(0b100, 20.0)
        assert not spread.is_slow(20.0)


def test_where_nothing_of_the_others_spreads_none_is_slow() -> None:
    spread = Spread()
    spread.brought(0b1, 0.0, is_mine=True)
    assert not spread.is_slow(100.0)


def test_what_was_brought_before_a_node_joined_says_nothing() -> None:
    spread = compared(0.2)
    spread.brought(0b100, 10.0, is_mine=True)
    spread.begin_anew()
    assert not spread.is_slow(20.0)
    spread.reached(0b100, 20.0)
    spread.brought(0b1000, 21.0, is_mine=True)
    assert spread.is_slow(23.1)


def test_how_long_the_others_take_is_smoothed() -> None:
    spread = compared(1.0)
    spread.brought(0b100, 10.0, is_mine=False)
    spread.reached(0b100, 16.0)
    spread.brought(0b1000, 20.0, is_mine=True)
    assert not spread.is_slow(27.9)  # 4 * (1 + 0.2 * 5)
    assert spread.is_slow(28.1)
