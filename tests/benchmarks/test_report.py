"""Figures in, words and JSON out."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks.machine import Load
from benchmarks.measure import Floor, LateJoin, SystemResult
from benchmarks.progress import Progress
from benchmarks.report import Report, Round
from benchmarks.sizes import parse_bytes, parse_rate


def report(*results: SystemResult, more: Sequence[Round] = ()) -> Report:
    return Report(
        nodes=2,
        image="debian",
        image_bytes=100_000_000,
        layers=3,
        wan_bit_s=100_000_000,
        lan_bit_s=1_000_000_000,
        client="fetch",
        seeder="warm",
        rounds=[Round(Floor(8.5, 104_000_000), results), *more],
        machine={"cores": 2},
    )


DIRECT = SystemResult("direct", [16.5, 17.0], 208_000_000, 2.0)
P2PD = SystemResult("p2pd", [8.4, 8.5], 105_000_000, 1.01, 1.2, 55.4)


def test_json_document_has_the_agreed_keys() -> None:
    document = json.loads(json.dumps(report(DIRECT, P2PD).document()))
    assert document["limit_s"] == 8.5
    assert document["scenario"] == {
        "nodes": 2,
        "image": "debian",
        "image_bytes": 100_000_000,
        "layers": 3,
        "wan_bit_s": 100_000_000,
        "lan_bit_s": 1_000_000_000,
        "client": "fetch",
        "seeder": "warm",
        "arrival": "together",
        "repeats": 1,
    }
    direct, p2pd = document["results"]
    assert direct["cpu_s_per_node"] is None
    core = {
        "system": "p2pd",
        "site_s": 8.5,
        "node_s": [8.4, 8.5],
        "wan_bytes": 105_000_000,
        "wan_ratio": 1.01,
        "cpu_s_per_node": 1.2,
        "rss_mib_per_node": 55.4,
        "anon_mib_per_node": None,
        "containerd_cpu_s_per_node": None,
        "seeder_cpu_s": None,
        "seeder_rss_mib": None,
    }
    assert {key: p2pd[key] for key in core} == core
    assert (p2pd["verified"], p2pd["cpu_bound"], p2pd["limit_ratio"]) == (True, False, 1.0)
    assert p2pd["spread"]["speed_up"] == {"min": 2.0, "median": 2.0, "max": 2.0}


def test_text_compares_with_the_slowest() -> None:
    lines = report(DIRECT, P2PD).text().splitlines()
    row = next(line for line in lines if line.startswith("p2pd"))
    assert " ".join(row.split()) == "p2pd 8.5 s 1.000 105.0 MB 1.01 x 2.0 x 1.2 s 55 MiB verified"
    bars = [line for line in lines if "█" in line]
    assert [line.count("█") for line in bars] == [44, 22, 22, 44, 22, 22]


def test_failed_system_is_not_drawn_as_a_fast_one() -> None:
    failed = SystemResult("p2pd", [0.1, 0.2], 10, 0.0, errors=["n0: ctr ended with 1: not found"])
    text = report(DIRECT, failed).text()
    assert "FAILED p2pd: n0: ctr ended with 1: not found" in text
    assert not any(line.startswith("  p2pd") for line in text.splitlines())
    assert report(failed).document()["results"] is not None
    assert "FAILED" in report(failed).text()


def test_repetitions_are_judged_each_by_its_own_plain_download() -> None:
    slow = Round(
        Floor(10.0, 104_000_000), [replace(DIRECT, node_s=[20.0, 20.0]), replace(P2PD, node_s=[11.0, 9.0])]
    )
    fast = Round(
        Floor(8.0, 104_000_000), [replace(DIRECT, node_s=[16.0, 16.0]), replace(P2PD, node_s=[8.2, 8.0])]
    )
    made = report(DIRECT, P2PD, more=[slow, fast])
    document = json.loads(json.dumps(made.document()))
    p2pd = document["results"][1]
    assert (document["limit_s"], document["limits"]) == (8.5, [8.5, 10.0, 8.0])
    assert (p2pd["site_s"], p2pd["node_s"], p2pd["limit_ratio"]) == (8.5, [8.4, 8.5], 1.025)
    assert p2pd["spread"]["limit_ratio"] == {"min": 1.0, "median": 1.025, "max": 1.1}
    assert p2pd["spread"]["last_wait_ratio"]["min"] == 0.9
    assert [run["limit_s"] for run in p2pd["runs"]] == [8.5, 10.0, 8.0]
    assert "p2pd: over 3 runs / limit 1.000 to 1.100" in made.text()


def test_one_failed_repetition_fails_the_system() -> None:
    broken = replace(P2PD, errors=["n1: ctr ended with 1: gone"])
    made = report(DIRECT, P2PD, more=[Round(Floor(8.5, 104_000_000), [DIRECT, broken])])
    document = json.loads(json.dumps(made.document()))
    assert not made.verified
    assert [result["verified"] for result in document["results"]] == [True, False]
    assert "FAILED p2pd: n1: ctr ended with 1: gone" in made.text()


def test_a_rolling_update_lasts_from_the_first_start_to_the_last_end() -> None:
    assert replace(P2PD, node_s=[9.0, 8.0], starts=[0.0, 2.0]).site_s == 10.0


def test_late_nodes_and_a_busy_machine_are_told() -> None:
    late = LateJoin([0.9], 3_000, 0)
    load = Load(busy=0.9, saturated=0.42, pressure=None, background=0.3)
    made = report(DIRECT, replace(P2PD, late=late, load=load))
    text = made.text()
    assert "late nodes took at most 0.90 s; 0.0 MB came over the WAN meanwhile, of content 0.0 MB" in text
    assert "CPU-BOUND p2pd: for 42% of the run" in text
    assert "NOT QUIET: 30% of this machine" in text
    p2pd = json.loads(json.dumps(made.document()))["results"][1]
    assert p2pd["cpu_bound"]
    assert p2pd["runs"][0]["late"]["wan_blob_bytes"] == 0


@pytest.mark.parametrize(
    ("text", "count", "rate"),
    [("160M", 160 << 20, 160_000_000), ("1.5g", 3 << 29, 1_500_000_000), ("4096", 4096, 4096)],
)
def test_sizes_and_rates(text: str, count: int, rate: int) -> None:
    assert parse_bytes(text) == count
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "M", "0", "-5M", "many", "1T", "nan", "inf"])
def test_senseless_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_bytes(text)


def test_plain_progress_is_a_line_every_few_seconds() -> None:
    out = io.StringIO()
    progress = Progress("direct", 100, out)
    for tick in range(12):
        progress.observe(tick * 0.5, [tick, 200])
    progress.finish("6.0 s")
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "[10% 100%]" in lines[1]


def test_live_progress_renews_one_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    progress = Progress("direct", 100, out)
    progress.observe(0.5, [0, 50, 100])
    progress.finish("6.0 s")
    assert out.getvalue().count("\n") == 1
    assert "[ ▄█]" in out.getvalue()
