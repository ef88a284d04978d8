"""What members are told, and when."""

from dataclasses import replace

import pytest

from p2pd.decide.bits import bits_to_run, run_to_bits
from p2pd.decide.report import (
    HEARTBEAT,
    MANY,
    REPORT_EVERY,
    WHOLE_EVERY,
    Report,
    Word,
    tells_gains,
    until_next_report,
)
from p2pd.model.layout import MIB
from p2pd.model.messages import ProgressDelta
from p2pd.model.reference import Digest

DIGEST = Digest("0" * 64)
SIZE = 64 * MIB


def delta(gained: int, flying: int, way: str = "seeder") -> Word:
    return Word(ProgressDelta(DIGEST, SIZE, *bits_to_run(gained), *bits_to_run(flying), way), for_all=True)


def between(gained: int, flying: int, way: str = "seeder") -> Word:
    return replace(delta(gained, flying, way), for_all=False)


def test_a_run_is_short_wherever_it_begins() -> None:
    assert bits_to_run(0) == (0, b"")
    assert bits_to_run(0xFF << 8) == (8, b"\xff")
    assert bits_to_run(0x1FF) == (0, b"\xff\x01")
    assert bits_to_run(0b101 << 1000) == (1000, b"\x05")
    for bits in (0, 1, 0b101 << 1000, (1 << 99) - 1):
        assert run_to_bits(*bits_to_run(bits)) == bits


def test_gains_are_told_once_and_what_is_in_flight_each_time() -> None:
    report = Report(DIGEST, SIZE)
    assert report.due(0b11, 0b1111, "seeder", 0.0) == delta(0b11, 0b1100)
    assert report.due(0b111, 0b1111, "seeder", 0.7) == delta(0b100, 0b1000)


def test_without_news_there_is_a_heartbeat() -> None:
    report = Report(DIGEST, SIZE)
    assert report.due(0, 1, "seeder", 0.0) is not None
    assert report.due(0, 1, "seeder", HEARTBEAT - 0.1) is None
    assert report.due(0, 1, "none", HEARTBEAT - 0.1) == delta(0, 1, "none"), "another way is news"
    assert report.due(0, 1, "none", 2 * HEARTBEAT) == delta(0, 1, "none")
    waiting = report.due(0, 1, "none", 2 * HEARTBEAT + 0.1, waits=True)
    assert waiting is not None
    assert waiting.delta == replace(delta(0, 1, "none").delta, waits=True), "so is that nothing comes of it"


def test_among_many_gains_alone_are_told_at_every_third_report() -> None:
    assert all(tells_gains(turn, MANY) for turn in range(3))
    assert [tells_gains(turn, MANY + 1) for turn in range(4)] == [True, False, False, True]
    report = Report(DIGEST, SIZE)
    assert report.due(0b1, 0b11, "seeder", 0.0, tell_gains=False) == delta(0b1, 0b10)
    assert report.due(0b101, 0b111, "seeder", 0.7, tell_gains=False) is None
    assert report.due(0b101, 0b111, "seeder", 0.8) == delta(0b100, 0b10)
    assert report.due(0b1111, 0b1111, "seeder", 1.4, tell_gains=False) == delta(0b1010, 0), "it was fetched"
    assert report.due(0b11111, 0b11111, "seeder", 1.5, tell_gains=False) is None
    assert report.due(0b11111, 0b11111, "seeder", 1.4 + HEARTBEAT, tell_gains=False) == delta(0b10000, 0)


def test_in_a_large_site_gains_alone_wait_for_their_turn_too() -> None:
    report = Report(DIGEST, SIZE)
    assert report.due(0b1, 0b11, "seeder", 0.0, is_large=True, tell_gains=False) == delta(0b1, 0b10)
    assert report.due(0b101, 0b111, "seeder", 0.7, is_large=True, tell_gains=False) is None
    assert report.due(0b101, 0b1111, "seeder", 0.9, is_large=True, tell_gains=False) == between(0b100, 0b1010)
    assert report.due(0b101, 0b1111, "seeder", 1.4, is_large=True, tell_gains=False) == delta(0b100, 0b1010)


def test_what_got_lost_is_told_again() -> None:
    report = Report(DIGEST, SIZE)
    report.due(0b11, 0b11, "seeder", 0.0)
    assert report.due(0b111, 0b111, "seeder", WHOLE_EVERY - 0.1) == delta(0b100, 0)
    assert report.due(0b1111, 0b1111, "seeder", WHOLE_EVERY) == delta(0b1111, 0)
    assert report.due(0b11111, 0b11111, "seeder", WHOLE_EVERY + 1) == delta(0b10000, 0)


def test_a_heartbeat_is_due_by_the_last_word_whenever_that_was() -> None:
    report = Report(DIGEST, SIZE)
    report.due(1, 1, "seeder", 100.0)
    assert report.due(1, 1, "seeder", 100.0 + HEARTBEAT - 0.1) is None
    assert report.due(1, 1, "seeder", 100.0 + HEARTBEAT) == delta(0, 0)
    assert report.due(1, 1, "seeder", 100.0 + 2 * HEARTBEAT - 0.1) is None


def in_large(report: Report, have: int, claimed: int, way: str, turn: int) -> Word | None:
    return report.due(have, claimed, way, turn * REPORT_EVERY, is_large=True)


def test_in_a_large_site_every_other_report_is_for_those_alone_that_fetch() -> None:
    report = Report(DIGEST, SIZE)
    assert in_large(report, 0b1, 0b11, "seeder", 0) == delta(0b1, 0b10)
    assert in_large(report, 0b11, 0b111, "seeder", 1) == between(0b10, 0b100)
    assert in_large(report, 0b111, 0b1111, "seeder", 2) == delta(0b110, 0b1000), "the others know of none"
    assert in_large(report, 0b1111, 0b1111, "seeder", 3) == between(0b1000, 0)
    assert in_large(report, 0b1111, 0b1111, "seeder", 4) == delta(0b1000, 0), "it is news to most"
    assert in_large(report, 0b1111, 0b1111, "seeder", 5) is None
    assert in_large(report, 0b1111, 0b1111, "seeder", 6) is None
    assert in_large(report, 0b1111, 0b1111, "seeder", 7) == delta(0, 0), "a heartbeat"


def test_in_a_large_site_who_fetches_nothing_tells_at_every_other_report() -> None:
    report = Report(DIGEST, SIZE)
    assert in_large(report, 0b1, 0b1, "none", 0) == delta(0b1, 0, "none")
    assert in_large(report, 0b11, 0b11, "none", 1) is None
    assert in_large(report, 0b111, 0b111, "none", 2) == delta(0b110, 0, "none")
    assert in_large(report, 0b111, 0b111, "seeder", 3) == between(0, 0), "it begins to"
    assert in_large(report, 0b111, 0b111, "none", 5) == delta(0, 0, "none")
    assert in_large(report, 0b111, 0b1111, "none", 6) == between(0, 0b1000, "none"), "it leads"


@pytest.mark.parametrize("wall", [0.0, 0.1, 0.7, 1.6, 3 * 0.7, 1_795_000_000.123])
def test_all_nodes_tell_at_the_same_moments(wall: float) -> None:
    seconds = until_next_report(wall)
    assert 0.1 < seconds <= REPORT_EVERY + 0.1
    turns = (wall + seconds) / REPORT_EVERY
    assert turns == pytest.approx(round(turns), abs=1e-5)
