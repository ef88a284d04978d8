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


def test_everything_is_drawn_and_drawn_alike(tmp_path: Path) -> None:
    found = {f"warm-{n}": document(n) for n in (8, 1, 2)}
    found["rolling-8"] = document(8, ("p2pd",), "rolling:2")
    drawn = draw(found, tmp_path)
    assert [path.name for _, path in drawn] == ["nodes.svg", "costs.svg", "curves.svg"]
    before = [path.read_bytes() for _, path in drawn]
    assert b"one plain download" in before[0]
    assert b"rolling:2" in before[2]
    draw(dict(reversed(found.items())), tmp_path)
    assert [path.read_bytes() for _, path in drawn] == before


def test_a_failed_run_is_not_drawn_as_a_good_one(tmp_path: Path) -> None:
    bad = document(8)
    bad["results"][1] |= {"verified": False, "spread": dict.fromkeys(bad["results"][1]["spread"])}
    [(_, path)] = draw({"warm-8": bad}, tmp_path)
    assert path.name == "nodes.svg"
    assert "#1a7f5a" not in path.read_text()


def test_the_readme_shows_pictures_and_bars(tmp_path: Path) -> None:
    results, page = tmp_path / "results", tmp_path / "README.md"
    results.mkdir()
    page.write_text(f"a\n{BEGIN}\nold\n{END}\nb\n")
    with pytest.raises(TestbedError, match="run make bench first"):
        write(results, tmp_path / "docs" / "bench", page)
    (results / "warm-8.json").write_text(json.dumps(document(8)))
    write(results, tmp_path / "docs" / "bench", page)
    text = page.read_text()
    assert "](docs/bench/nodes.svg)" in text
    assert "| 8 node(s), warm: site / limit | <= 1.040 | 1.048 | 1.045 | 1.050 | missed |" in text
    assert "old" not in text
