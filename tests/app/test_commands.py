"""The commands of `p2pd` against a live daemon: what they print, and their exit status."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from benchmarks.testbed.registry import FaultRegistry
from p2pd.app.cli import main
from p2pd.app.commands import make_app
from p2pd.app.commands.output import age, plain, size
from p2pd.app.commands.status import screen
from p2pd.model.content import OCI_MANIFEST
from p2pd.model.layout import MIB
from p2pd.model.reference import Tag
from seeder.cli import main as seeder_main
from tests.support.daemon import Daemon, node_config, open_daemon

LAYER = bytes(range(256)) * (2 * MIB // 256) + b"end"
MANIFEST_TYPE = "application/octet-stream"

NO_DATA = {"run", "config defaults"}
"""Commands without --json: one never answers, the other prints a file."""

Call = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def registry(nursery: trio.Nursery) -> FaultRegistry:
    registry = FaultRegistry()
    await nursery.start(registry.run)
    layer = {"mediaType": MANIFEST_TYPE, "digest": str(registry.add_blob(LAYER)), "size": len(LAYER)}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [layer]}
    registry.add_manifest(json.dumps(manifest).encode(), Tag("v1"), Tag("v2"))
    return registry


@pytest.fixture
async def node(registry: FaultRegistry, tmp_path: Path) -> AsyncIterator[Daemon]:
    config = node_config(tmp_path, registry.url, socket=str(tmp_path / "p2pd.sock"))
    async with open_daemon(config) as daemon:
        yield daemon


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.setenv("P2PD_SOCKET", str(tmp_path / "p2pd.sock"))

    async def run(*words: str) -> tuple[int, str, str]:
        with capture_logs():  # the daemon's own lines: it lives in this process
            status = await trio.to_thread.run_sync(main, words)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


async def test_a_day_of_a_node(node: Daemon, call: Call, tmp_path: Path) -> None:
    for command, empty in [
        ("peers", "no other node was found yet"),
        ("images", "no tag was asked for yet"),
        ("blobs", "nothing is held yet"),
        ("transfers", "nothing is on its way"),
    ]:
        assert await call(command) == (0, "", empty + "\n")
        assert json.loads((await call(command, "--json"))[1]) == []

    status, out, err = await call("pull", "app:v1")
    assert (status, err) == (0, "")
    lines = (r"app:v1 is sha256:\w{64}", r"sha256:\w{64} 2.1 MB", r"held whole: 2.1 MB in [\d.]+ s", "")
    assert re.fullmatch(r"\n".join(lines), out)
    await node.settled()

    _, out, _ = await call("images")
    assert re.search(r"^reg.test/app:v1 +\w{12} +2.1 MB +2.1 MB +whole$", out, re.MULTILINE)
    _, out, _ = await call("blobs")
    assert re.search(r"^sha256:\w{64} +2.1 MB +\ds +reg.test/app:v1$", out, re.MULTILINE)

    status, out, err = await call("status")
    assert (status, err) == (0, "")
    assert "site test" in out
    assert "held 2 blobs, 2.1 MB" in out
    assert "WAN    origin up" in out
    assert re.search(r"^from registries \(WAN\) +2.1 MB +2.1 MB$", out, re.MULTILINE)
    assert re.search(r"^WAN spared +-2.1 MB +-2.1 MB$", out, re.MULTILINE)
    assert json.loads((await call("status", "--json"))[1])["site"] == "test"

    assert (await call("verify"))[:2] == (0, "2 blobs, 2.1 MB: none bad\n")


async def test_watching_ends_with_ctrl_c(node: Daemon, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = iter([None, None])

    def tick(_seconds: float) -> None:
        if next(shown, "end") == "end":
            raise KeyboardInterrupt

    monkeypatch.setattr("p2pd.app.commands.status.time.sleep", tick)
    status, out, err = await call("status", "--watch", "--json")
    assert (status, err) == (130, "")
    assert [json.loads(line)["site"] for line in out.splitlines()] == ["test"] * 3


async def test_several_pulls(node: Daemon, call: Call, tmp_path: Path) -> None:
    listed = tmp_path / "images"
    listed.write_text("# ours\n\napp:v2  # new\nreg.test/app:v1\n")
    status, out, err = await call("pull", "app:none", "--from-file", str(listed), "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert re.fullmatch(r"p2pd: app:none: .+\n", err)
    done = [event["reference"] for event in events if event["event"] == "done"]
    assert done == ["app:v2", "reg.test/app:v1"]


async def test_what_fails_is_one_line(node: Daemon, call: Call) -> None:
    mistakes = {
        "pull": "no image is named",
        "pull app:none": "app",
        "pull APP": "is not valid",
        "pull else.test/app": "is not a configured registry",
        "pull app:v1 --platform linux": "not a platform",
        "pull --from-file /nope": "cannot read /nope",
        "verify x": "is not sha256",
        "status --socket": "requires an argument",
    }
    for words, line in mistakes.items():
        found, out, err = await call(*words.split())
        assert (found, out) == (2, ""), words
        assert err.startswith("p2pd: ")
        assert err.count("\n") == 1
        assert line in err


async def test_a_pull_that_fails_half_way(node: Daemon, call: Call, registry: FaultRegistry) -> None:
    registry.blobs.clear()
    status, _, err = await call("pull", "app:v1")
    assert status == 1
    assert err.count("\n") == 1


async def test_rot_is_an_exit_status(node: Daemon, call: Call) -> None:
    await call("pull", "app:v1")
    [large] = [path for path in node.store.glob("blobs/sha256/*/*") if path.stat().st_size == len(LAYER)]
    large.write_bytes(bytes(len(LAYER)))
    status, out, _ = await call("verify")
    assert status == 1
    assert out.splitlines() == [f"sha256:{large.name} is corrupt: dropped", "2 blobs, 2.1 MB: 1 bad"]
    status, out, _ = await call("verify", f"sha256:{large.name}")
    assert (status, out.splitlines()[0]) == (1, f"sha256:{large.name} is not held")
    assert (await call("verify", f"sha256:{large.name}", "--json"))[0] == 1


@pytest.mark.parametrize("words", [["status"], ["peers"], ["pull", "app"], ["verify"], ["status", "--watch"]])
async def test_without_a_daemon(call: Call, tmp_path: Path, words: list[str]) -> None:
    line = f"p2pd: nobody answers at {tmp_path}/p2pd.sock: is p2pd running? systemctl status p2pd\n"
    assert await call(*words) == (3, "", line)


async def test_something_else_at_the_socket(call: Call, tmp_path: Path) -> None:
    async def babble(stream: trio.SocketStream) -> None:
        await stream.send_all(b"SSH-2.0-nonsense\r\n")
        await stream.aclose()

    with trio.socket.socket(trio.socket.AF_UNIX) as sock:
        await sock.bind(str(tmp_path / "p2pd.sock"))
        sock.listen(5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, babble, [trio.SocketListener(sock)])
            status, out, err = await call("status")
            nursery.cancel_scope.cancel()
    assert (status, out) == (3, "")
    assert err.count("\n") == 1


async def test_another_daemon_at_the_socket(
    node: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["status", "--socket", str(tmp_path / "p2pd.sock")]
    assert await trio.to_thread.run_sync(seeder_main, words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "p2pd-seeder: the daemon's answer has no 'listen'" in said.err
    assert "Traceback" not in said.err


def commands(app: Any, above: str = "") -> list[tuple[str, Any]]:
    found = [(f"{above}{info.name or info.callback.__name__}", info) for info in app.registered_commands]
    for group in app.registered_groups:
        found += commands(group.typer_instance, f"{above}{group.name} ")
    return found


@pytest.mark.parametrize(("name", "info"), commands(make_app()), ids=lambda value: str(value)[:20])
async def test_every_help_teaches(name: str, info: Any, call: Call) -> None:
    status, out, err = await call(*name.split(), "--help")
    assert (status, err) == (0, "")
    first = (inspect.getdoc(info.callback) or "").partition("\n")[0]
    assert 10 < len(first) < 100
    for line in out.splitlines():
        assert not re.fullmatch(r"\s+--[\w-]+", line), "an option without a word on it"
    assert "--json" in out or name in NO_DATA


async def test_the_help_lists_every_command(call: Call) -> None:
    out = (await call("--help"))[1]
    listed = out.partition("Commands:")[2]
    names = {name.split()[0] for name, _ in commands(make_app())}
    assert all(re.search(rf"^  {name} ", listed, re.MULTILINE) for name in names)
    assert "Exit status: 0 done" in out


def test_nothing_from_the_network_steers_the_terminal() -> None:
    notice = {"at": 0.0, "level": "warning", "event": "x", "detail": "a\x1b[2Jb\nc"}
    from rich.console import Console

    traffic = {"given": 1, "lan": 2, "seeder": 3, "origin": 4}
    status = {
        "version": "1",
        "site": "s",
        "node": "n" * 32,
        "started_at": 0.0,
        "mirror": "m",
        "peers": 0,
        "blobs": 0,
        "blob_bytes": 0,
        "sources": [{"name": "u\x1b", "up": True, "registries_down": ["r"]}],
        "today": traffic,
        "total": traffic,
        "counted_since": 0.0,
        "wan_spared_today": 0,
        "wan_spared_total": 0,
        "transfers": [],
        "notices": [notice],
    }
    console = Console(width=200)
    with console.capture() as captured:
        console.print(screen(status, 100.0))
    assert "\x1b" not in captured.get()
    assert "a\\x1b[2Jb\\nc" in captured.get()
    assert "but for r" in captured.get()


def test_amounts_for_people() -> None:
    assert [size(n) for n in (0, 999, 1000, 1_234_567, -5_000_000, 2e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.2 MB",
        "-5.0 MB",
        "2000.0 TB",
    ]
    assert [age(s) for s in (-1, 59, 60, 7200, 86400 * 9.5)] == ["0s", "59s", "1m", "2h", "9d"]
    assert plain(None) == ""
