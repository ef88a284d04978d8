"""The rows of `make bench`."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks import matrix
from benchmarks.__main__ import COMMANDS, main
from benchmarks.matrix import ROWS, words_of


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    matrix.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_is_a_command_that_takes_its_words(row: matrix.Row) -> None:
    command, *words = words_of(row, options("--size", "8M", "--wan", "40M", "--repeat", "3"))
    parser = argparse.ArgumentParser()
    COMMANDS[command][0].add_arguments(parser)
    parsed = parser.parse_args([*words, "--json", "x.json"])
    if row.sized:
        assert (parsed.size, parsed.wan, parsed.repeat) == ("8M", 40_000_000 * row.share, 3)


def test_an_unknown_row_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "matrix", "--rows", "idle,warm-3"])
    assert main() == 1
    assert "no such row: warm-3; choose of warm-1" in capsys.readouterr().err


def test_a_row_that_breaks_leaves_no_old_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "broken.json"
    old.write_text("{}")
    broken = matrix.Row("broken", ("update", "--nodes", "0"))
    said: list[str] = []
    why = matrix._play(broken, options("--size", "1M", "--results", str(tmp_path)), said.append)
    assert why == said[-1]
    assert why.startswith("update: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", name, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert f"benchmarks {name}" in capsys.readouterr().out


def test_every_command_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    assert [name for name in COMMANDS if f"| `{name}` |" not in page] == ["readme"]
