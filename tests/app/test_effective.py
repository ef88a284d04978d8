"""What holds, and where it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from p2pd.app.config import NodeConfig
from p2pd.app.effective import Setting, effective
from p2pd.app.reference import reference
from p2pd.app.settings import load_document
from seeder.config import SeederConfig

FILE = """\
lan.swarm_port = 0
[node]
# comment
site = "shop"
[upstreams."r.example:5000"]
alias = "r"
url = "http://r.example:5000"
"""


@pytest.mark.parametrize("cls", [NodeConfig, SeederConfig])
def test_without_a_file_every_key_is_at_its_default(cls: Any) -> None:
    settings = list(effective(cls, None))
    assert {setting.file for setting in settings} == {None}
    keys = {".".join(setting.path) for setting in settings}
    expected = {f"{s.name}.{key.name}" for s in reference(cls) if s.entries is None for key in s.keys}
    assert keys >= expected
    assert "upstreams.docker.io.url" in keys


def test_what_is_written_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "p2pd.toml"
    path.write_text(FILE)
    settings = {setting.path: setting for setting in effective(NodeConfig, load_document(path))}
    assert settings["lan", "swarm_port"] == Setting(("lan", "swarm_port"), 0, str(path), 1)
    assert settings["node", "site"] == Setting(("node", "site"), "shop", str(path), 4)
    assert settings["node", "state_dir"] == Setting(("node", "state_dir"), "/var/lib/p2pd")
    registry = ("upstreams", "r.example:5000")
    upstreams = [setting for setting in settings.values() if setting.path[0] == "upstreams"]
    assert upstreams == [
        Setting((*registry, "url"), "http://r.example:5000", str(path), 7),
        Setting((*registry, "alias"), "r", str(path), 6),
        Setting((*registry, "ca_file"), ""),
    ]
