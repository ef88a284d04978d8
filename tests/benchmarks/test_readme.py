"""The demo's results in the README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.readme import BEGIN, END, table, with_measured
from benchmarks.testbed import TestbedError


def result(system: str, **changes: Any) -> dict[str, Any]:
    known = {
        "system": system,
        "site_s": 17.0,
        "wan_bytes": 208_000_000,
        "wan_ratio": 2.0,
        "cpu_s_per_node": None,
        "rss_mib_per_node": None,
        "verified": True,
    }
    return known | changes


P2PD = result(
    "p2pd", site_s=8.5, wan_bytes=105_040_000, wan_ratio=1.01, cpu_s_per_node=1.26, rss_mib_per_node=55.4
)


def document(*results: dict[str, Any]) -> dict[str, Any]:
    scenario = {
        "nodes": 2,
        "image": "debian",
        "image_bytes": 100_000_000,
        "layers": 3,
        "wan_bit_s": 100_000_000,
        "lan_bit_s": 1_000_000_000,
        "client": "fetch",
        "seeder": "warm",
    }
    return {"scenario": scenario, "limit_s": 8.4, "results": list(results)}


def readme(directory: Path) -> Path:
    path = directory / "README.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    return path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["benchmarks", "readme", *map(str, arguments)])
    return main()


def test_a_run_becomes_a_table() -> None:
    lines = table(document(result("direct"), P2PD)).splitlines()
    assert lines[0] == (
        "2 nodes, WAN 100 Mbit/s, LAN 1 Gbit/s, debian image of 100.0 MB in 3 layers, "
        "fetched by containerd, warm seeder:"
    )
    assert lines[-3:] == [
        "| direct | 17.0 s | 208.0 MB | 2.00 x | 1.0 x |  |  |",
        "| **p2pd** | 8.5 s | 105.0 MB | 1.01 x | 2.0 x | 1.3 s | 55 MiB |",
        "| one download | 8.4 s | 104.0 MB | 1.00 x | | | |",
    ]
    assert {line.count("|") for line in lines[2:]} == {8}


def test_only_what_is_between_the_marks_is_replaced() -> None:
    assert with_measured(f"a{BEGIN}b{END}c", "new") == f"a{BEGIN}\nnew\n{END}c"
    for text in ("", BEGIN, f"{END}{BEGIN}"):
        with pytest.raises(TestbedError, match="measured:begin"):
            with_measured(text, "new")


def test_tables_and_picture_reach_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, picture = readme(tmp_path), tmp_path / "docs" / "update.svg"
    file = tmp_path / "demo.json"
    file.write_text(json.dumps(document(result("direct"), P2PD)))
    assert call(monkeypatch, file, file, "--readme", page, "--picture", picture) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n![")
    assert text.endswith(f"{END}\nafter\n")
    assert (text.count("**p2pd**"), text.count("(docs/update.svg)"), text.count("old")) == (2, 1, 0)
    drawn = picture.read_bytes()
    assert b"1.01" in drawn
    assert b"one download" in drawn
    assert call(monkeypatch, file, file, "--readme", page, "--picture", picture) == 0
    assert (page.read_text(), picture.read_bytes()) == (text, drawn)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "not a result of demo"),
        ("[]", "not a result of demo"),
        ("{}", "not a result of demo"),
        (json.dumps(document()), "not a result of demo"),
        (json.dumps(document(result("p2pd", verified=False))), "p2pd failed in this run"),
    ],
)
def test_what_is_no_good_run_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str,
    why: str,
) -> None:
    page, file = readme(tmp_path), tmp_path / "demo.json"
    file.write_text(content)
    before = page.read_text()
    assert call(monkeypatch, file, "--readme", page) == 1
    assert page.read_text() == before
    assert why in capsys.readouterr().err
