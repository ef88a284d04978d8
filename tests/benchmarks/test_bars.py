"""What was promised, beside what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.bars import BARS, Bar, judge, load, markdown, table
from benchmarks.matrix import ROWS
from benchmarks.testbed import TestbedError


def row(least: float, median: float, most: float, **changes: Any) -> dict[str, Any]:
    return {"spread": {"x": {"min": least, "median": median, "max": most}}, **changes}


def update(median: float, *, verified: bool = True, cpu_bound: bool = False, noisy: bool = False) -> Any:
    spread = {"limit_ratio": {"min": median, "median": median, "max": median}}
    p2pd = {
        "system": "p2pd",
        "verified": verified,
        "cpu_bound": cpu_bound,
        "spread": spread,
        "runs": [{"load": {"noisy": noisy}}],
    }
    return {"results": [{"system": "direct", "verified": True, "spread": {}}, p2pd]}


def word(bar: Bar, document: Any) -> str:
    [verdict] = judge({"r": document} if document is not None else {}, [bar])
    return verdict.word


def test_the_median_is_judged() -> None:
    most, least = Bar("r", "x", "", 1.05), Bar("r", "x", "", 800, at_least=True)
    assert word(most, row(1.0, 1.05, 1.5)) == "met"
    assert word(most, row(1.0, 1.06, 1.5)) == "missed"
    assert word(least, row(700, 800, 900)) == "met"
    assert word(least, row(700, 799, 900)) == "missed"
    assert word(most, row(1, 1.2, 2, cpu_bound=True)) == "missed, CPU-bound"
    assert word(most, row(1, 1.0, 2, cpu_bound=True, noisy=True)) == "met, not quiet"
    assert word(most, None) == "not measured"
    assert word(Bar("r", "y", "", 1), row(1, 1, 1)) == "not measured"


def test_a_busy_machine_excuses_no_memory() -> None:
    document = {"spread": {"rss_mib": {"min": 70, "median": 70, "max": 70}}, "cpu_bound": True, "noisy": True}
    assert word(Bar("r", "rss_mib", "", 60), document) == "missed"


def test_of_an_update_p2pd_is_judged() -> None:
    bar = Bar("r", "limit_ratio", "", 1.03)
    assert word(bar, update(1.02)) == "met"
    assert word(bar, update(1.04, cpu_bound=True)) == "missed, CPU-bound"
    assert word(bar, update(1.04, noisy=True)) == "missed, not quiet"
    assert word(bar, update(1.0, verified=False)) == "missed: the run failed"
    assert word(Bar("r", "speed_up", "", 1), update(1.0)) == "not measured"


def test_every_bar_has_a_row_that_measures_it() -> None:
    assert {bar.row for bar in BARS} <= {one.name for one in ROWS}
    assert len({(bar.row, bar.figure) for bar in BARS}) == len(BARS)


def test_tables() -> None:
    bars = [Bar("r", "x", "held layer, MB/s", 800, at_least=True), Bar("absent", "x", "not run", 1.05)]
    verdicts = judge({"r": row(700, 850, 900)}, bars)
    lines = table(verdicts)
    assert lines[1].split()[-6:] == [">=", "800", "850", "700", "900", "met"]
    assert lines[2].split()[-5:] == ["-", "-", "-", "not", "measured"]
    assert len(markdown(verdicts).splitlines()) == 3


def test_the_exit_code_tells_of_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bars() -> int:
        out = str(tmp_path / "out" / "bars.json")
        monkeypatch.setattr("sys.argv", ["benchmarks", "bars", "--results", str(tmp_path), "--json", out])
        return main()

    (tmp_path / "out").mkdir()
    assert bars() == 1
    assert "run make bench first" in capsys.readouterr().err
    (tmp_path / "warm-2.json").write_text(json.dumps(update(1.01)))
    assert bars() == 0
    (tmp_path / "warm-2.json").write_text(json.dumps(update(1.5)))
    assert bars() == 1
    told = json.loads((tmp_path / "out" / "bars.json").read_text())
    assert [one["verdict"] for one in told if one["measured"] is not None] == ["missed"]


def test_a_torn_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "idle.json").write_text("{")
    with pytest.raises(TestbedError, match=r"idle\.json cannot be read"):
        load(tmp_path)
