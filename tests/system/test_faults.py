"""The cheap rows of the fault matrix, on one small site."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.faults.command import ROWS
from benchmarks.faults.row import Limits, Row, Seen, judge
from benchmarks.faults.stage import Stage, measure_baseline, open_stage, play
from benchmarks.testbed import missing_prerequisite

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if (why := missing_prerequisite()) is not None:
        pytest.skip(f"no testbed: {why}")
    with open_stage(4, 24_000_000, 50_000_000, tmp_path_factory.mktemp("faults")) as stage:
        seen = measure_baseline(stage)
        assert (seen.pulls_failed, seen.wrong_bytes, seen.leftovers) == (0, 0, [])
        yield stage


@pytest.mark.parametrize("row", [row for row in ROWS if row.in_suite], ids=lambda row: row.name)
def test_row(stage: Stage, row: Row) -> None:
    seen = play(stage, row)
    if judge(row.limits, seen) and not _breaks_what_no_load_excuses(seen):
        seen = play(stage, row)  # seconds and bytes of a site this small: once is noise, twice is not
    assert judge(row.limits, seen) == []


def _breaks_what_no_load_excuses(seen: Seen) -> bool:
    """A failed pull, a wrong byte, a leftover, or what the row itself promises."""
    return bool(judge(Limits(None, None, None), seen))
