from __future__ import annotations

from p2pd.decide.suspects import MIXED_BAN, SUSPECT_FOR, Suspects


def test_a_ban_after_few_bad_pieces_is_proof() -> None:
    suspects = Suspects()
    assert suspects.convict("10.0.0.4", 1, 5.0)
    assert suspects.convict("10.0.0.4", MIXED_BAN - 1, 6.0)


def test_a_ban_after_many_makes_a_suspect_and_the_second_is_proof() -> None:
    suspects = Suspects()
    assert not suspects.convict("10.0.0.4", MIXED_BAN, 5.0)
    assert not suspects.convict("10.0.0.5", MIXED_BAN, 5.0)
    assert suspects.convict("10.0.0.4", MIXED_BAN, 5.0 + SUSPECT_FOR - 1)


def test_a_suspicion_is_forgotten_in_time() -> None:
    suspects = Suspects()
    assert not suspects.convict("10.0.0.4", 9, 5.0)
    assert not suspects.convict("10.0.0.4", 9, 5.0 + SUSPECT_FOR)
    assert suspects.convict("10.0.0.4", 9, 5.0 + SUSPECT_FOR + 1)


def test_who_was_found_guilty_begins_anew() -> None:
    suspects = Suspects()
    assert not suspects.convict("10.0.0.4", 9, 5.0)
    assert suspects.convict("10.0.0.4", 9, 6.0)
    assert not suspects.convict("10.0.0.4", 9, 7.0)


def test_no_crowd_of_hosts_fills_the_memory() -> None:
    suspects = Suspects()
    for number in range(5000):
        assert not suspects.convict(f"host {number}", 9, float(number) / 1000)
    assert len(suspects._since) <= 1024
    assert suspects.convict("host 4999", 9, 6.0)
