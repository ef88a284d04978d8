"""The doctor beside a real daemon, and without one."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from benchmarks.testbed.registry import FaultRegistry
from p2pd.app.cli import main
from p2pd.app.config import NodeConfig, parse
from p2pd.app.doctor.examine import examine
from p2pd.app.doctor.finding import Finding
from p2pd.app.doctor.wan import check_blob, check_mirror, default_image
from p2pd.io.serve import serve
from p2pd.model.address import Address
from p2pd.model.content import OCI_MANIFEST
from p2pd.model.reference import Tag
from tests.support.daemon import REGISTRY, node_config, open_daemon
from tests.support.memory_files import MemoryFiles

CONFIG = b'{"architecture": "amd64"}'


@pytest.fixture
async def registry(nursery: trio.Nursery) -> FaultRegistry:
    registry = FaultRegistry()
    await nursery.start(registry.run)
    digest = registry.add_blob(CONFIG)
    manifest = registry.add_manifest(json.dumps({"config": {"digest": str(digest)}}).encode(), Tag("v1"))
    index = {"manifests": [{"digest": str(manifest), "mediaType": OCI_MANIFEST}]}
    registry.add_manifest(json.dumps(index).encode(), Tag("all"))
    registry.add_manifest(b'{"manifests": []}', Tag("none"))
    return registry


async def findings(config: NodeConfig, image: str | None) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    looking = examine(
        config, MemoryFiles(), lambda _program: False, image=image, option="", file="/etc/p2pd/p2pd.toml"
    )
    async with aclosing(looking):
        async for finding in looking:
            found.setdefault(finding.check, []).append(finding)
    return found


async def test_a_node_that_works(registry: FaultRegistry, tmp_path: Path) -> None:
    config = node_config(tmp_path, registry.url)
    async with open_daemon(config) as daemon:
        listen = Address("127.0.0.1", daemon.client.base_url.port or 0)
        told = replace(config, mirror=replace(config.mirror, listen=listen))
        found = await findings(told, f"{REGISTRY}/team/app:v1")
        assert [each.level for each in found["daemon"] + found["pull"] + found["disk"]] == ["ok"] * 4
        assert f"a blob of {len(CONFIG)} bytes" in found["pull"][0].says
        assert " answers " in found["registry"][0].says
        [by_index] = await check_blob(told, f"{REGISTRY}/team/app:all")
        assert by_index.level == "ok"
        assert [each.says for each in found["peers"]] == [
            "lan.multicast is off and lan.peers is empty: this node is alone"
        ]
        [broken] = await check_blob(told, f"{REGISTRY}/team/app:none")
        assert (broken.level, broken.says) == ("fail", f"{REGISTRY}/team/app:none: its manifest is malformed")
        [missing] = await check_blob(told, f"{REGISTRY}/team/app:v2")
        assert "the mirror answers 404" in missing.says


async def test_a_node_without_its_daemon(registry: FaultRegistry, tmp_path: Path) -> None:
    free = Address("127.0.0.1", 1)
    config = node_config(tmp_path, registry.url)
    found = await findings(replace(config, mirror=replace(config.mirror, listen=free)), None)
    assert found["daemon"][0].level == "fail"
    assert (found["daemon"][0].mend or "").startswith("systemctl start p2pd")
    assert [each.says for each in found["pull"]] == ["not tried: the daemon is down"]
    assert {"ports", "peers", "registry", "seeder", "clock", "disk", "runtime"} <= set(found)


async def test_another_program_on_the_port_is_not_taken_for_p2pd(nursery: trio.Nursery) -> None:
    async def hello(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("up 1\n")

    async def run(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        app = Starlette(routes=[Route("/metrics", hello)])
        await serve(app, host="127.0.0.1", port=0, graceful_s=1, task_status=task_status)

    _, port = await nursery.start(run)
    mirror, [finding] = await check_mirror(
        parse(f'[mirror]\nlisten = "127.0.0.1:{port}"'.encode(), NodeConfig)
    )
    assert mirror is None
    assert "is not p2pd" in finding.says
    assert finding.mend == f"ss -ltnp 'sport = :{port}'"


async def test_without_an_image_that_is_known_it_says_so() -> None:
    private = parse(b'[upstreams."r.example"]\nurl = "https://r.example"\n', NodeConfig)
    assert default_image(private) is None
    [finding] = await check_blob(private, None)
    assert finding.level == "warn"
    assert default_image(NodeConfig()) == "registry.k8s.io/pause:3.9"


async def test_an_image_that_no_url_can_name_is_a_finding() -> None:
    [finding] = await check_blob(NodeConfig(), "docker.io/a\x00b:v1")
    assert finding.level == "fail"
    assert "is no URL" in finding.says


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p2pd.toml"
    file.write_text(
        f'[node]\nstate_dir = "{tmp_path}/none"\n[mirror]\nlisten = "127.0.0.1:1"\n'
        "[lan]\nmulticast = false\n[wan]\ndirect = false\n"
    )
    assert main(["doctor", "--config", str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("warn config     wan.seeders is empty")
    assert lines[1].strip() == f"-> p2pd config show --config {file}"
    assert lines[-1].endswith("to look at")
    assert main(["doctor", "--config", str(file), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert {"check", "level", "says", "mend"} == set(document["findings"][0])
