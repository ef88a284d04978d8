"""Whether the machine was the bottleneck, from what the kernel says."""

from __future__ import annotations

import pytest

from benchmarks.machine import (
    CpuTimes,
    Load,
    LoadWatch,
    busy_share,
    parse_cpu_times,
    parse_pressure,
    saturated_share,
)

STAT = "cpu  100 10 50 800 40 5 15 30 70 7\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n"


def samples(*busy: float) -> list[CpuTimes]:
    """Half seconds of two cores, each so much in use."""
    found = [CpuTimes(0.0, 0.0)]
    for share in busy:
        found.append(CpuTimes(found[-1].busy + share, found[-1].total + 1.0))
    return found


def test_idle_and_waiting_for_disks_is_not_busy_and_stolen_time_is() -> None:
    times = parse_cpu_times(STAT)
    assert times.total == pytest.approx(10.5)
    assert times.busy == pytest.approx(2.1)


def test_shares_of_samples() -> None:
    line = samples(1.0, 0.5, 0.96, 0.0)
    assert busy_share(line[0], line[-1]) == pytest.approx(0.615)
    assert saturated_share(line) == pytest.approx(0.5)
    assert busy_share(line[0], line[0]) == 0.0
    assert saturated_share(line[:1]) == 0.0


@pytest.mark.parametrize(("saturated", "bound"), [(0.0, False), (0.09, False), (0.10, True), (1.0, True)])
def test_bound_by_cpu_is_a_tenth_of_the_time_without_any_to_spare(saturated: float, bound: bool) -> None:
    load = Load(busy=0.7, saturated=saturated, pressure=0.9, background=0.0)
    assert load.cpu_bound is bound
    assert load.document()["cpu_bound"] is bound


def test_pressure_is_read_from_the_line_some() -> None:
    text = "some avg10=0.00 avg60=0.10 avg300=0.00 total=12345\nfull avg10=0.00 total=9\n"
    assert parse_pressure(text) == 12345
    with pytest.raises(ValueError, match="no line"):
        parse_pressure("")


def test_a_watch_reads_this_machine() -> None:
    watch = LoadWatch(background=0.25)
    watch.sample()
    load = watch.finish()
    assert load.noisy
    assert 0.0 <= load.busy <= 1.0
    assert 0.0 <= load.saturated <= 1.0
