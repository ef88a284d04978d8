"""The fault matrix judges what it saw, and names its rows once."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks.faults.command import ROWS, add_arguments, run
from benchmarks.faults.row import Limits, Row, Seen, document, judge, table
from benchmarks.testbed import TestbedError
from benchmarks.testbed.live_site import sample

ROW = Row("one", "something breaks", "nobody notices", lambda stage: None, Limits(1.1, 5.0, 10.0))


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_all_that_is_within_its_limits_holds() -> None:
    assert judge(ROW.limits, Seen(pulls=4, wan_ratio=1.1, extra_s=5.0, recovered_s=10.0)) == []


@pytest.mark.parametrize(
    "seen",
    [
        Seen(pulls=4, pulls_failed=1),
        Seen(wrong_bytes=1),
        Seen(wan_ratio=1.11),
        Seen(extra_s=5.1),
        Seen(recovered_s=10.1),
        Seen(leftovers=["n0: 1 files in scratch/"]),
        Seen(broken=["it said nothing"]),
    ],
)
def test_each_broken_promise_is_told(seen: Seen) -> None:
    assert len(judge(ROW.limits, seen)) == 1
    assert "FAILED" in table(ROW, seen)
    assert document(ROW, seen, 1.0)["failures"] == judge(ROW.limits, seen)


def test_a_limit_of_none_is_not_judged() -> None:
    assert judge(Limits(None, None, None), Seen(wan_ratio=9.0, extra_s=99.0, recovered_s=99.0)) == []


def test_what_a_killed_daemon_had_in_flight_weighs_more_in_a_small_image() -> None:
    limits = Limits(1.05, lost=2)
    assert judge(limits, Seen(wan_ratio=1.09, image_bytes=40 << 20)) == []
    assert judge(limits, Seen(wan_ratio=1.09, image_bytes=200 << 20)) == ["wan_ratio 1.09 > 1.06"]


def test_rows_have_names_of_their_own_and_some_are_in_the_suite() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert sum(row.in_suite for row in ROWS) >= 3


def test_a_metric_is_the_sum_of_its_samples() -> None:
    text = 'p2pd_x_total{source="a"} 1.5e+06\np2pd_x_total{source="b"} 2.0\np2pd_x_total_more 7\np2pd_y 4.0\n'
    assert sample(text, "p2pd_x_total") == 1_500_002
    assert sample(text, "p2pd_x_total", '"b"') == 2
    assert sample(text, "p2pd_y") == 4


def test_list_plays_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(options("--list", "--json", str(tmp_path / "out.json"))) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ROWS)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_row_is_refused_in_one_line() -> None:
    with pytest.raises(TestbedError, match="no row is called nonsense"):
        run(options("--only", "nonsense"))
