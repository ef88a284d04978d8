"""`p2pd config` and `p2pd-seeder config`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import p2pd.app.cli
import seeder.cli
from p2pd.app.config import NodeConfig
from p2pd.app.settings import load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "p2pd.toml"
    path.write_text('[node]\nsite = "shop"\n[mirror]\nlisten = "0.0.0.0:7780"\n')
    return path


def test_show_tells_where_each_value_is_written(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert p2pd.app.cli.main(["config", "show", "--config", str(file)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["node.site", '"shop"', f"{file}:2"] in lines
    assert ["wan.direct", "true", "default"] in lines
    assert ['upstreams."docker.io".url', '"https://registry-1.docker.io"', "default"] in lines


def test_show_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert p2pd.app.cli.main(["config", "show", "--config", str(file), "--json"]) == 0
    settings = {each["key"]: each for each in json.loads(capsys.readouterr().out)}
    assert settings["node.site"] == {
        "key": "node.site",
        "value": "shop",
        "source": "file",
        "file": str(file),
        "line": 2,
    }
    assert settings["lan.peers"]["value"] == []
    assert settings["lan.peers"]["source"] == "default"


def test_check_says_what_may_be_a_mistake(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert p2pd.app.cli.main(["config", "check", str(file)]) == 0
    warning, verdict = capsys.readouterr().out.splitlines()
    assert warning.startswith(f"{file}: warning: mirror.listen is 0.0.0.0:7780")
    assert verdict == f"{file}: valid"
    assert p2pd.app.cli.main(["config", "check", str(file), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["warnings"]) == 1


@pytest.mark.parametrize("command", ["check", "show"])
def test_a_mistake_is_one_line(command: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[node]\nsites = 1\n")
    option = [] if command == "check" else ["--config"]
    assert p2pd.app.cli.main(["config", command, *option, str(file)]) == 2
    assert capsys.readouterr() == ("", f"p2pd: {file}, line 2: node.sites: unknown key; did you mean site?\n")


def test_the_defaults_are_a_file_that_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert p2pd.app.cli.main(["config", "defaults"]) == 0
    path = tmp_path / "p2pd.toml"
    path.write_text(capsys.readouterr().out)
    assert load(path, NodeConfig) == NodeConfig()


def test_the_seeder_has_the_same_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "seeder.toml"
    path.write_text('[seeder]\ntag_ttl = "1m"\n')
    assert seeder.cli.main(["config", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: valid\n"
    assert seeder.cli.main(["config", "show", "--config", str(path)]) == 0
    assert ["seeder.tag_ttl", '"1m"', f"{path}:2"] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]
