from __future__ import annotations

from p2pd.decide.suspects import MIXED_BAN, SUSPECT_FOR, Suspects

LIAR, HONEST = "10.0.0.4", "10.0.0.5"


def test_a_ban_after_few_bad_pieces_is_proof() -> None:
    suspects = Suspects()
    assert suspects.convict(LIAR, 1, 0.0, 5.0)
    assert suspects.convict(LIAR, MIXED_BAN - 1, 0.0, 6.0)


def test_a_ban_after_many_makes_a_suspect_and_the_second_is_proof() -> None:
    suspects = Suspects()
    assert not suspects.convict(LIAR, MIXED_BAN, 0.0, 5.0)
    assert not suspects.convict(HONEST, MIXED_BAN, 0.0, 5.0)
    assert suspects.convict(LIAR, MIXED_BAN, 0.0, 5.0 + SUSPECT_FOR - 1)


def test_what_a_liar_left_half_done_proves_nothing_against_who_completes_it() -> None:
    suspects = Suspects()
    assert suspects.convict(LIAR, 1, 0.0, 5.0)
    for _ in range(3):
        assert not suspects.convict(HONEST, 2, 5.0, 14.0)
    assert suspects.convict(LIAR, 2, 0.0, 14.0), "from another torrent"
    assert suspects.convict(HONEST, 1, 15.0, 20.0), "this torrent never knew the liar"


def test_a_suspicion_is_forgotten_in_time() -> None:
    suspects = Suspects()
    assert not suspects.convict(LIAR, 9, 0.0, 5.0)
    assert not suspects.convict(LIAR, 9, 0.0, 5.0 + SUSPECT_FOR)
    assert suspects.convict(LIAR, 9, 0.0, 5.0 + SUSPECT_FOR + 1)


def test_who_was_found_guilty_begins_anew() -> None:
    suspects = Suspects()
    assert not suspects.convict(LIAR, 9, 0.0, 5.0)
    assert suspects.convict(LIAR, 9, 0.0, 6.0)
    assert not suspects.convict(LIAR, 9, 0.0, 7.0)


def test_no_crowd_of_hosts_fills_the_memory() -> None:
    suspects = Suspects()
    for number in range(5000):
        assert not suspects.convict(f"host {number}", 9, 0.0, float(number) / 1000)
    assert len(suspects._since) <= 1024
    assert suspects.convict("host 4999", 9, 0.0, 6.0)
