"""The demo as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.testbed import missing_prerequisite

pytestmark = pytest.mark.system

REPOSITORY = Path(__file__).parents[2]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return benchmark("demo", *arguments)


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(autouse=True)
def _needs_testbed() -> None:
    if (why := missing_prerequisite()) is not None:
        pytest.skip(f"no testbed: {why}")


def test_demo_of_todays_systems(tmp_path: Path) -> None:
    out = tmp_path / "sub" / "demo.json"
    small = ["--nodes", "2", "--wan", "40M", "--image", "2M", "--layers", "1"]
    done = demo(*small, "--systems", "direct,pull-through", "--json", str(out))
    assert (done.returncode, done.stderr.count("all content verified")) == (0, 2)
    document = json.loads(out.read_text())
    assert document["scenario"]["wan_bit_s"] == 40_000_000
    direct, through = document["results"]
    assert direct["verified"]
    assert through["verified"]
    assert direct["wan_ratio"] == pytest.approx(2.0, rel=0.05)
    assert direct["site_s"] == max(direct["node_s"]) > document["limit_s"]
    assert "site updated" in done.stdout


def test_late_nodes_of_a_repeated_update_fetch_nothing_over_the_wan(tmp_path: Path) -> None:
    out = tmp_path / "update.json"
    small = [
        "--nodes",
        "2",
        "--wan",
        "40M",
        "--lan",
        "200M",
        "--size",
        "2M",
        "--layers",
        "1",
        "--repeat",
        "2",
    ]
    done = benchmark("update", *small, "--systems", "p2pd", "--arrival", "late:1", "--json", str(out))
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    [result] = document["results"]
    assert len(document["limits"]) == len(result["runs"]) == 2
    assert result["spread"]["limit_ratio"]["min"] <= result["limit_ratio"]
    for run in result["runs"]:
        assert run["late"]["wan_blob_bytes"] == 0
        assert run["late"]["wan_bytes"] < 20_000
        assert run["site_s"] == pytest.approx(run["starts"][1] + run["node_s"][1])
        assert run["starts"][1] > run["node_s"][0]
        assert [held[-1] > 2_000_000 for held in run["curve"]["held_bytes"]] == [True, True]
        assert 0 < run["anon_mib_per_node"] < run["rss_mib_per_node"]
        assert 0 < run["load"]["busy"] <= 1


def test_p2pd_is_compared_with_a_bare_swarm_of_the_same_bytes(tmp_path: Path) -> None:
    out = tmp_path / "bare.json"
    done = benchmark(
        "bare", "--nodes", "2", "--wan", "40M", "--size", "2M", "--layers", "1", "--json", str(out)
    )
    assert done.returncode == 0, done.stderr
    [run] = json.loads(out.read_text())["runs"]
    assert run["ratio"] == pytest.approx(run["p2pd_ms_per_mb"] / run["bare_ms_per_mb"])
    assert run["bare_ms_per_mb"] > 0
    assert run["bare_wan_ratio"] > 0.9


def test_interrupt_in_mid_update_ends_at_once() -> None:
    slow = ["--nodes", "2", "--wan", "1M", "--image", "256K", "--layers", "1", "--systems", "direct"]
    command = [sys.executable, "-m", "benchmarks", "demo", *slow]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        line = ""
        while "of the site" not in line:
            line = running.stderr.readline()
            assert line
        running.send_signal(signal.SIGINT)
        sent = time.monotonic()
        assert running.wait(10) == 130
        assert time.monotonic() - sent < 2.0
        assert running.stderr.read().endswith("demo: interrupted\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--systems", "direct,kraken"],
            "demo: no such system: kraken; choose of direct, pull-through, p2pd",
        ),
        (["--nodes", "0", "--image", "1M"], "demo: such a site cannot be built: nodes must be 1 to"),
        (["--image", "huge"], "demo: --image huge:"),
        (["--image", "1M", "--layers", "0"], "demo: --image 1M: an image has at least one layer"),
        (["--image", "1M", "--json", "/proc/no/file"], "demo: --json /proc/no/file:"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments: list[str], expected: str) -> None:
    done = demo(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1
