"""The simulator's command: small sites, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.readme import BEGIN, END
from benchmarks.simulate import simulate_site, simulate_sites

MIB = 1 << 20


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["benchmarks", "simulate", *map(str, arguments)])
    return main()


def test_tables_and_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docs, out = tmp_path / "scale.md", tmp_path / "out.json"
    docs.write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n")
    sizes = ("--nodes", "2,3", "--churn", "0,50", "--image", "8M", "--sites", "7")
    assert call(monkeypatch, *sizes, "--json", out, "--docs", docs) == 0
    document = json.loads(out.read_text())
    assert [(r["nodes"], r["churn"]) for r in document["site_results"]] == [(2, 0), (2, 50), (3, 0), (3, 50)]
    assert document["crowds"][0]["egress_bytes"] >= 7 * 8 * MIB
    text = docs.read_text()
    assert text.startswith(f"before\n{BEGIN}\nOne blob of 8.4 MB")
    assert "stale" not in text
    assert "| 3 | 50 % (" in text


@pytest.mark.parametrize("wrong", [("--nodes", "0"), ("--nodes", "x"), ("--churn", "101"), ("--wan", "fast")])
def test_what_makes_no_site_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, *wrong)


def test_the_same_seed_gives_the_same_figures() -> None:
    one, two = (simulate_site(70, 4 * MIB, 6e6, 20.0, 3) for _ in range(2))
    assert one == two
    assert one != simulate_site(70, 4 * MIB, 6e6, 20.0, 4)


def test_sites_share_what_the_seeder_can_send() -> None:
    alone, many = (simulate_sites(sites, 4 * MIB, 6e6, 60e6, 0) for sites in (1, 100))
    assert alone.limit_s == pytest.approx(4 * MIB / 6e6)
    assert many.limit_s == pytest.approx(10 * alone.limit_s)
    assert many.egress_bytes == pytest.approx(100 * alone.egress_bytes, rel=0.05)
