"""Pictures of measured updates, and the README that shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import Curve, Floor, SystemResult
from benchmarks.plots import BEGIN, END, draw, write
from benchmarks.report import Report, Round
from benchmarks.testbed import TestbedError


def document(nodes: int, systems: tuple[str, ...] = ("direct", "p2pd"), arrival: str = "together") -> Any:
    """As `update --json` writes it."""

    def result(system: str, seconds: float) -> SystemResult:
        curve = Curve([0.0, seconds], [[0, 40_000_000] for _ in range(nodes)])
        cpu_s, rss = (1.5, 90.0) if system == "p2pd" else (None, None)
        return SystemResult(system, [seconds] * nodes, 42_000_000, 1.01, cpu_s, rss, curve=curve)

    rounds = [
        Round(Floor(10.0 + number, 41_600_000), [result(system, 10.5 + number) for system in systems])
        for number in range(2)
    ]
    made = Report(nodes, "random", 40_000_000, 4, 16_000_000, 10**9, "fetch", "warm", rounds, arrival)
    return json.loads(json.dumps(made.document()))


def test_everything_is_drawn_and_drawn_alike_and_the_readme_shows_it(tmp_path: Path) -> None:
    results, docs, page = tmp_path / "results", tmp_path / "docs" / "bench", tmp_path / "README.md"
    results.mkdir()
    page.write_text(f"a\n{BEGIN}\nold\n{END}\nb\n")
    with pytest.raises(TestbedError, match="run make bench first"):
        write(results, docs, page)
    found = {"warm-8": document(8), "warm-2": document(2), "rolling-8": document(8, ("p2pd",), "rolling:2")}
    for name, one in found.items():
        (results / f"{name}.json").write_text(json.dumps(one))
    write(results, docs, page)
    text = page.read_text()
    assert "](docs/bench/nodes.svg)" in text
    assert "| 8 node(s), warm: site / limit | <= 1.040 | 1.048 | 1.045 | 1.050 | missed |" in text
    assert "old" not in text
    drawn = draw(dict(reversed(found.items())), tmp_path / "again")
    assert [path.name for _, path in drawn] == ["nodes.svg", "costs.svg", "curves.svg"]
    for _, path in drawn:
        assert path.read_bytes() == (docs / path.name).read_bytes()
    assert "one plain download" in (docs / "nodes.svg").read_text()
    assert "rolling:2" in (docs / "curves.svg").read_text()


def test_a_failed_run_is_not_drawn_as_a_good_one(tmp_path: Path) -> None:
    bad = document(8)
    bad["results"][1] |= {"verified": False, "spread": dict.fromkeys(bad["results"][1]["spread"])}
    [(_, path)] = draw({"warm-8": bad}, tmp_path)
    assert path.name == "nodes.svg"
    assert "#1a7f5a" not in path.read_text()
