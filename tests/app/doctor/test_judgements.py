"""From facts to findings: each level for its reason, each failure with a command."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from p2pd.app.config import NodeConfig, parse
from p2pd.app.doctor.budget import Holdings, check_budget, judge_budget
from p2pd.app.doctor.finding import Finding
from p2pd.app.doctor.lan import judge_multicast, judge_peers
from p2pd.app.doctor.machine import check_disk, check_ports, check_runtimes, judge_clock, judge_disk
from p2pd.app.doctor.wan import Answer, judge_wan
from p2pd.app.runtimes.manage import mirror_of, plan_install
from p2pd.io.mdns import LocalAddress
from p2pd.io.probes import DiskFacts, Heard, Node, bind_error
from p2pd.model.address import Address
from p2pd.model.stock import DiskSpace, Limits, Portion
from tests.support.memory_files import MemoryFiles

ETH0 = LocalAddress("eth0", 2, "10.0.0.1")
SEEDERS = parse(b'[wan]\nseeders = ["http://s:1"]\ndirect = false\n', NodeConfig)


def levels(found: list[Finding]) -> list[str]:
    for finding in found:
        assert "\n" not in finding.says
        assert finding.mend or finding.level != "fail", "a failure says what to do"
    return [finding.level for finding in found]


def nothing(_program: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("skews", "level"),
    [
        ({}, "warn"),
        ({"a": 0.4}, "ok"),
        ({"a": -59}, "ok"),
        ({"a": 61}, "warn"),
        ({"a": -4000}, "fail"),
        ({"a": 4000, "b": 2}, "ok"),
    ],
)
def test_the_clock_is_held_against_the_one_that_agrees_most(skews: dict[str, float], level: str) -> None:
    assert levels(judge_clock(skews)) == [level]


def test_the_clock_says_which_way() -> None:
    assert judge_clock({"http://s": -120})[0].says == "120 s behind http://s"
    assert judge_clock({"http://s": 120})[0].says == "120 s ahead of http://s"


GB = 10**9


@pytest.mark.parametrize(
    ("free", "rate", "expected"),
    [
        (50 * GB, 200e6, ["ok", "ok"]),
        (4 * GB, 200e6, ["warn", "ok"]),
        (GB // 4, 200e6, ["fail", "ok"]),
        (50 * GB, 5e6, ["ok", "warn"]),
        (50 * GB, None, ["ok", "warn"]),
    ],
)
def test_disk(free: int, rate: float | None, expected: list[str]) -> None:
    assert levels(judge_disk(DiskFacts(100 * GB, free, rate, None), "/srv")) == expected


@pytest.mark.parametrize(
    ("limits", "free", "largest", "expected"),
    [
        (Limits(), 50, 20, [""]),
        (Limits(min_free=Portion(percent=10)), 50, None, [""]),
        (Limits(min_free=Portion(percent=10)), 5, None, ["p2pd gc"]),
        (Limits(min_free=Portion(60 * GB)), 50, 20, ["p2pd gc", "df -h"]),
        (Limits(max_bytes=95 * GB, min_free=Portion(percent=10)), 50, 20, ["${EDITOR:-vi} /x.toml"]),
        (Limits(max_bytes=15 * GB), 50, 20, ["${EDITOR:-vi} /x.toml"]),
        (Limits(max_bytes=15 * GB), 50, None, [""]),
        (Limits(max_bytes=80 * GB, min_free=Portion(percent=10)), 20, 40, ["df -h"]),
    ],
)
def test_budget(limits: Limits, free: int, largest: int | None, expected: list[str]) -> None:
    holdings = Holdings(10 * GB, None if largest is None else ("r.example/a:1", largest * GB))
    found = judge_budget(limits, DiskSpace(free * GB, 100 * GB), holdings, "/x.toml")
    assert levels(found) == [("warn" if mend else "ok") for mend in expected]
    assert [(each.mend or "").startswith(mend) for each, mend in zip(found, expected, strict=True)] == [
        True
    ] * len(expected)


async def test_without_the_daemon_only_the_disk_is_held_against_the_limits(tmp_path: Path) -> None:
    text = f'[node]\nstate_dir = "{tmp_path}"\n[admin]\nsocket = "{tmp_path}/none.sock"\n'
    assert levels(await check_budget(parse(text.encode(), NodeConfig), "/x.toml")) in (["ok"], ["warn"])


async def test_a_state_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    config = parse(f'[node]\nstate_dir = "{tmp_path}/none"\n'.encode(), NodeConfig)
    assert levels(await check_disk(config)) == ["warn"]


async def test_the_disk_is_really_written_and_left_clean(tmp_path: Path) -> None:
    config = parse(f'[node]\nstate_dir = "{tmp_path}"\n'.encode(), NodeConfig)
    found = await check_disk(config)
    assert "durably" in found[1].says
    assert os.listdir(tmp_path) == []


async def test_ports_of_a_daemon_that_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = parse(
            f'[mirror]\nlisten = "127.0.0.1:{port}"\n'.encode()
            + b'[lan]\ncontrol = "192.0.2.77:7781"\nswarm_port = 0\n',
            NodeConfig,
        )
        found = await check_ports(config, is_running=False)
    assert levels(found) == ["fail", "fail"]
    assert "none of this machine's" in found[0].says
    assert found[1].mend == f"ss -ltnp 'sport = :{port}'"
    error = bind_error("127.0.0.1", port)
    assert error is None or error.errno != errno.EADDRINUSE


async def test_ports_of_a_daemon_that_runs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as open_one, socket.create_server(("127.0.0.1", 0)) as other:
        port, closed = open_one.getsockname()[1], other.getsockname()[1]
        other.close()
        lan = f'[lan]\ncontrol = "0.0.0.0:{port}"\nswarm_port = {closed}\n'
        found = await check_ports(parse(lan.encode(), NodeConfig), is_running=True)
    assert levels(found) == ["ok", "fail"]
    assert "Connection refused" in found[1].says


def test_multicast() -> None:
    heard = [Heard(ETH0, itself=True), Heard(ETH0), Heard(ETH0, error="No such device")]
    found = judge_multicast(heard, (), nothing)
    assert levels(found) == ["ok", "fail", "fail"]
    assert found[1].mend == "nft insert rule inet filter input udp dport 5353 accept"
    assert found[2].mend == "ip link set eth0 up multicast on"
    [other] = judge_multicast([Heard(ETH0)], (), "ufw".__eq__)
    assert other.mend == "ufw allow 5353/udp"
    [blocked] = judge_multicast([Heard(ETH0, itself=True)], (), nothing, silent=3)
    assert blocked.level == "warn"
    assert "though 3 can be reached: something between them drops multicast" in blocked.says
    [none] = judge_multicast([], ("eth9",), nothing)
    assert none.says.startswith("none of eth9 has an IPv4 address")


A, B = Address("10.0.0.2", 7781), Address("10.0.0.3", 7781)
NODE = Node("10.0.0.2", 7781, "default", "a" * 32)


@pytest.mark.parametrize(
    ("nodes", "errors", "live", "expected"),
    [
        ({NODE}, {A: None}, 1, ["ok"]),
        ({NODE}, {A: None}, None, ["ok"]),
        ({NODE}, {A: None}, 0, ["fail"]),
        ({NODE}, {A: "refused"}, None, ["fail", "warn"]),
        (set(), {}, 0, ["warn"]),
        (set(), {}, 3, ["ok"]),
        ({Node("10.0.0.2", 7781, "other", "b" * 32)}, {}, 0, ["warn"]),
    ],
)
def test_peers(
    nodes: set[Node], errors: dict[Address, str | None], live: int | None, expected: list[str]
) -> None:
    assert levels(judge_peers(NodeConfig(), nodes, errors, live)) == expected


def test_static_peers_that_are_off_are_no_failure() -> None:
    config = parse(b'[lan]\npeers = ["10.0.0.2:7781", "10.0.0.3:7781"]\nmulticast = false\n', NodeConfig)
    found = judge_peers(config, set(), {A: "no answer", B: None}, 1)
    assert levels(found) == ["warn", "ok"]
    assert "10.0.0.2:7781 of lan.peers" in found[0].says


def test_a_node_without_any_way_to_others_is_told_so() -> None:
    [found] = judge_peers(parse(b"[lan]\nmulticast = false\n", NodeConfig), set(), {}, 0)
    assert "this node is alone" in found.says
    [found] = judge_peers(NodeConfig(), {Node("10.0.0.2", 1, "shop-8", "c")}, {}, 0)
    assert found.says.endswith("other sites on this LAN: shop-8")


@pytest.mark.parametrize(
    ("config", "seeders", "registries", "expected"),
    [
        (SEEDERS, [Answer("http://s:1", 200)], [], ["ok"]),
        (SEEDERS, [Answer("http://s:1", 404)], [], ["fail", "fail"]),
        (SEEDERS, [Answer("http://s:1", error="x")], [], ["fail", "fail"]),
        (NodeConfig(), [], [Answer("https://r", 401)], ["ok", "ok"]),
        (NodeConfig(), [], [Answer("https://r", 500), Answer("https://q", 200)], ["warn", "ok", "ok"]),
        (NodeConfig(), [], [Answer("https://r", error="x")], ["warn", "ok", "fail"]),
        (parse(b"[wan]\ndirect = false\n", NodeConfig), [], [], ["fail"]),
    ],
)
def test_wan(
    config: NodeConfig, seeders: list[Answer], registries: list[Answer], expected: list[str]
) -> None:
    assert levels(judge_wan(config, seeders, registries)) == expected


def test_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pd.app.doctor.machine.version_of", lambda _program: None)
    config, files = NodeConfig(), MemoryFiles(dirs=("/etc/docker",))

    def look(config: NodeConfig) -> list[Finding]:
        return check_runtimes(config, files, "dockerd".__eq__, " --config x")

    [found] = look(config)
    assert (found.level, found.mend) == ("warn", "p2pd runtime install docker --config x")
    files.files["/etc/docker/daemon.json"] = b'{"registry-mirrors": ["http://127.0.0.1:7780"]}'
    assert levels(look(config)) == ["ok"]
    files.files["/etc/docker/daemon.json"] = b"{"
    assert levels(look(config)) == ["warn"]
    files.files["/etc/docker/daemon.json"] = b"{}"
    hub = parse(b'[mirror]\ndefault_registry = "ghcr.io"\n', NodeConfig)
    assert "default_registry is ghcr.io" in look(hub)[0].says
    assert levels(check_runtimes(config, files, nothing, "")) == ["warn"]


def test_a_runtime_that_was_told_of_another_port_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pd.app.doctor.machine.version_of", lambda _program: None)
    files = MemoryFiles()
    files = files.apply(plan_install("podman", files, mirror_of(NodeConfig())))
    moved = parse(b'[mirror]\nlisten = "127.0.0.1:9000"\n', NodeConfig)
    [found] = check_runtimes(moved, files, "podman".__eq__, "")
    assert (found.level, found.mend) == ("fail", "p2pd runtime install podman")
