"""docs/clients.md shows what `p2pd runtime install` writes, and names the clients that tests pull with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from p2pd.app.config import NodeConfig
from p2pd.app.runtimes.draft import Mirror
from p2pd.app.runtimes.manage import plan_install
from p2pd.model.reference import DOCKER_HUB
from tests.support.memory_files import MemoryFiles
from tests.system.test_clients_pull import CLIENTS

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()


@pytest.mark.parametrize("runtime", ["containerd", "podman", "docker"])
def test_the_blocks_are_what_install_writes(runtime: str) -> None:
    config = NodeConfig()
    hub = tuple(spec for spec in config.upstreams if spec.registry == DOCKER_HUB)
    plan = plan_install(runtime, MemoryFiles(), Mirror(config.mirror.listen, hub))
    assert plan.changes
    for change in plan.changes:
        assert change.after is not None
        text = re.sub(r"^# (>>>|<<<) p2pd.*\n", "", change.after.decode(), flags=re.MULTILINE)
        kind, title = ("json", "") if change.path.endswith(".json") else ("toml", f"# {change.path}\n")
        assert f"```{kind}\n{title}{text}```\n" in PAGE
        assert change.path in PAGE


def test_every_client_has_a_row() -> None:
    rows = " ".join(re.findall(r"^\| (.*?) \|", PAGE, re.MULTILINE)).lower()
    for name in CLIENTS:
        for word in re.split(r"\d?-", name):
            assert word in rows
