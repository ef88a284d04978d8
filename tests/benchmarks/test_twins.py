"""The twins of the fault matrix: a few seeds of each, and what the command says of a broken promise."""

from __future__ import annotations

import ast
import fnmatch
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import twins
from benchmarks.__main__ import main
from benchmarks.faults.command import ROWS
from benchmarks.simulator.broken import BrokenSite
from benchmarks.simulator.site import MIB
from benchmarks.twins import TWINS, Twin, play
from p2pd import decide
from p2pd.decide.plan import Way

SMALL = [twin for twin in TWINS if twin.nodes <= 8]
NOT_ROWS = {"half-off-100", "starved", "wan-hang", "yield", "rolling"}


@pytest.mark.parametrize("twin", SMALL, ids=[twin.name for twin in SMALL])
def test_a_promise_holds(twin: Twin) -> None:
    assert play(twin, 0).broken == ()


def test_twins_are_named_after_rows() -> None:
    assert {twin.name for twin in TWINS} - NOT_ROWS <= {row.name for row in ROWS}


def test_every_row_has_a_twin_or_a_documented_reason_why_not() -> None:
    document = Path(__file__).parents[2] / "docs" / "benchmarks.md"
    table = document.read_text().partition("| rows without a twin |")[2].partition("\n\n")[0]
    reasons = [name for line in table.splitlines()[1:] for name in re.findall(r"`(\S+)`", line.split("|")[1])]
    without = {row.name for row in ROWS} - {twin.name for twin in TWINS}
    explained = [name for reason in reasons for name in fnmatch.filter(without, reason)]
    assert sorted(explained) == sorted(without)
    assert [reason for reason in reasons if not fnmatch.filter(without, reason)] == []


def test_no_decision_reads_a_clock() -> None:
    """What jumps of a machine's clock cannot reach needs no twin."""
    clocks = {"time", "datetime", "trio", "asyncio"}
    for path in sorted(Path(decide.__file__).parent.glob("*.py")):
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                imported.add(node.module.partition(".")[0])
        assert not imported & clocks, path.name


def test_the_same_seed_is_the_same_run() -> None:
    twin = next(twin for twin in TWINS if twin.name == "starved")
    assert play(twin, 7) == play(twin, 7) != play(twin, 8)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["benchmarks", "twins", *map(str, arguments)])
    return main()


def test_a_broken_promise_is_told_with_its_seed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = replace(SMALL[0], wan_ratio=0.5, extra_s=-1.0)
    monkeypatch.setattr(twins, "TWINS", [strict])
    out = tmp_path / "out.json"
    assert call(monkeypatch, "--seeds", 1, "--first", 4, "--json", out) == 1
    assert "seed 4: WAN ratio 1." in capsys.readouterr().out
    (run,) = json.loads(out.read_text())[0]["runs"]
    assert run["seed"] == 4
    assert len(run["broken"]) == 2


def test_a_site_that_stands_still_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "_LIMIT", 30.0)
    still = replace(SMALL[0], play=lambda site, _: site.set_wan(0.0))
    assert play(still, 0).broken[0].startswith("not done after 30.0 s")


def test_an_unknown_twin_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--only", "nonsense") == 1
    assert "no twin is called nonsense" in capsys.readouterr().err


def test_a_side_that_is_cut_off_hears_and_gets_nothing_from_the_other() -> None:
    site = BrokenSite(2, 2 * MIB, seed=0, wan=4e6, latency=0.001, loss=0.0, way=Way.SEEDER)
    site.cut_off([site.nodes[1]], 1)
    site.run()
    assert site.wan_ratio == pytest.approx(2.0, rel=0.01)
    assert all(not node.known for node in site.nodes)


def test_a_frozen_node_acts_when_it_goes_on() -> None:
    site = BrokenSite(1, 2 * MIB, seed=0, wan=4e6, latency=0.001, loss=0.0, way=Way.SEEDER)
    site.at(0.0, lambda: site.freeze(site.nodes[0], 5.0))
    assert site.run() >= 5.0
