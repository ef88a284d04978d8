"""Figures with their spread."""

from __future__ import annotations

import json

from benchmarks.machine import Load
from benchmarks.outcome import Outcome, aligned, spread, spreads

BUSY = Load(busy=1.0, saturated=0.9, pressure=None, background=0.3)
LABELS = {"ready_s": "exec to ready, s"}


def outcome(*, judged: bool = True) -> Outcome:
    runs = [{"ready_s": 0.9}, {"ready_s": 0.7}, {"ready_s": 1.4}]
    return Outcome("idle", {"nodes": 2}, LABELS, runs, [BUSY], judged, {"cores": 2})


def test_spread() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"min": 1.0, "median": 2.0, "max": 3.0}
    assert spread([]) is None
    assert spreads([]) == {}


def test_document() -> None:
    document = json.loads(json.dumps(outcome().document()))
    assert document["spread"] == {"ready_s": {"min": 0.7, "median": 0.9, "max": 1.4}}
    assert (document["cpu_bound"], document["noisy"], len(document["runs"])) == (True, True, 3)


def test_what_means_to_use_all_of_the_cpu_is_not_blamed_for_it() -> None:
    assert "CPU-BOUND" in outcome().text()
    assert "CPU-BOUND" not in outcome(judged=False).text()
    assert "NOT QUIET: 30%" in outcome(judged=False).text()


def test_columns_are_aligned() -> None:
    assert aligned(["", "b"], [["one", "2"], ["x", "100"]]) == ["       b", "one    2", "x    100"]
