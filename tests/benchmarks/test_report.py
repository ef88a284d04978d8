"""Figures in, words and JSON out."""

from __future__ import annotations

import io
import json

import pytest

from benchmarks.measure import Floor, SystemResult
from benchmarks.progress import Progress
from benchmarks.report import Report, parse_bytes, parse_rate


def report(*results: SystemResult) -> Report:
    return Report(
        nodes=2,
        image="debian",
        image_bytes=100_000_000,
        layers=3,
        wan_bit_s=100_000_000,
        lan_bit_s=1_000_000_000,
        client="fetch",
        seeder="warm",
        floor=Floor(8.5, 104_000_000),
        results=results,
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
    }
    direct, p2pd = document["results"]
    assert direct["cpu_s_per_node"] is None
    assert p2pd == {
        "system": "p2pd",
        "site_s": 8.5,
        "node_s": [8.4, 8.5],
        "wan_bytes": 105_000_000,
        "wan_ratio": 1.01,
        "cpu_s_per_node": 1.2,
        "rss_mib_per_node": 55.4,
        "containerd_cpu_s_per_node": None,
        "verified": True,
    }


def test_text_compares_with_the_slowest() -> None:
    lines = report(DIRECT, P2PD).text().splitlines()
    row = next(line for line in lines if line.startswith("p2pd"))
    assert " ".join(row.split()) == "p2pd 8.5 s 105.0 MB 1.01 x 2.0 x 1.2 s 55 MiB verified"
    bars = [line for line in lines if "█" in line]
    assert [line.count("█") for line in bars] == [44, 22, 22, 44, 22, 22]


def test_failed_system_is_not_drawn_as_a_fast_one() -> None:
    failed = SystemResult("p2pd", [0.1, 0.2], 10, 0.0, errors=["n0: ctr ended with 1: not found"])
    text = report(DIRECT, failed).text()
    assert "FAILED p2pd: n0: ctr ended with 1: not found" in text
    assert not any(line.startswith("  p2pd") for line in text.splitlines())
    assert report(failed).document()["results"] is not None
    assert "FAILED" in report(failed).text()


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
