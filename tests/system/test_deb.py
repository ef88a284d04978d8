"""The Debian packages on a machine that really boots systemd: installed, hurt, updated, removed."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from benchmarks.testbed import synthetic_image
from benchmarks.testbed.images import Image
from p2pd.app.config import NodeConfig
from p2pd.app.settings import parse
from p2pd.model.reference import Digest
from seeder.config import SeederConfig
from tests.support.machine import Machine, booted, missing_prerequisite, wait_for

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
BASE = ROOT / "build" / "deb-cache" / "root-amd64"
ORIGIN = "127.0.0.1:5000"
UPSTREAM = f'[upstreams."{ORIGIN}"]\nurl = "http://{ORIGIN}"\n'

Boot = Callable[..., Machine]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both packages for this machine, by name; the root to install them in is made meanwhile."""
    if (why := missing_prerequisite()) is not None:
        pytest.skip(f"no machine can be booted: {why}")
    out = tmp_path_factory.mktemp("deb")
    commands = [
        [sys.executable, ROOT / "packaging/deb/build.py", "--arch", "amd64", "--uncompressed", "--out", out],
        [ROOT / "packaging/deb/root.sh", "amd64", BASE],
    ]
    with ThreadPoolExecutor() as pool:
        for done in pool.map(
            lambda command: subprocess.run(command, capture_output=True, text=True), commands
        ):
            assert done.returncode == 0, done.stderr[-2000:]
    return {path.name.partition("_")[0]: path for path in out.glob("*.deb")}


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """Boot machines that are gone when the test ends."""
    with ExitStack() as stack:
        yield lambda *binds: stack.enter_context(booted(BASE, tmp_path / "machine", binds))


@pytest.fixture
def newer(packages: dict[str, Path], tmp_path: Path) -> Path:
    """The node's package with a higher version and one more default in its configuration file."""
    tree = tmp_path / "newer"
    subprocess.run(["dpkg-deb", "-R", packages["p2pd"], tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*", "Version: 99.0", control.read_text()))
    config = tree / "etc/p2pd/p2pd.toml"
    config.write_text(config.read_text() + "# one more line\n")
    made = tmp_path / "p2pd_99.0_amd64.deb"
    subprocess.run(["dpkg-deb", "-Znone", "-b", tree, made], check=True, capture_output=True)
    return made


@pytest.mark.parametrize(
    ("name", "config", "cls"),
    [("p2pd", "p2pd.toml", NodeConfig), ("p2pd-seeder", "seeder.toml", SeederConfig)],
)
def test_a_package_is_sound(
    packages: dict[str, Path], name: str, config: str, cls: type, tmp_path: Path
) -> None:
    subprocess.run(["dpkg-deb", "-x", packages[name], tmp_path], check=True)
    text = (tmp_path / "etc/p2pd" / config).read_bytes()
    assert parse(text, cls) == cls()
    assert text.count(b"\n#") > 20
    for page in (f"man1/{name}.1.gz", f"man5/{config}.5.gz"):
        read = subprocess.run(
            ["man", "--warnings", "-l", tmp_path / "usr/share/man" / page], capture_output=True, text=True
        )
        assert len(read.stdout) > 1000
        assert read.stderr == ""


@pytest.mark.parametrize("unit", ["p2pd.service", "p2pd-seeder.service"])
def test_a_unit_is_hardened(unit: str) -> None:
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=12", ROOT / "systemd" / unit],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stdout[-500:] + said.stderr


def test_life_of_a_node(packages: dict[str, Path], newer: Path, boot: Boot) -> None:
    machine = boot()
    before = machine.files()
    machine.sh("ip link add lan0 type veth peer name lan1; ip link set lan1 up")
    machine.sh("ip address add 10.9.0.1/24 dev lan0; ip link set lan0 up")
    machine.install(packages["p2pd"])
    assert machine.is_active("p2pd"), machine.run("journalctl", "-u", "p2pd")
    assert machine.show("p2pd", "UnitFileState") == "enabled"
    assert "0 peers" in machine.show("p2pd", "StatusText")
    limits = [machine.show("p2pd", name) for name in ("MemoryMax", "TasksMax", "LimitNOFILE")]
    assert limits == [str(768 << 20), "128", "65536"]
    _check_network(machine)
    # Nothing but our own is touched: no runtime's configuration, for one.
    assert {path for path in machine.files() - before if "p2pd" not in path} <= {
        "/etc/passwd-",
        "/etc/group-",
    }
    _check_commands(machine)

    _check_recovery(machine)

    edited = '[node]\nsite = "edited"\n'
    (machine.root / "etc/p2pd/p2pd.toml").write_text(edited)
    old = machine.main_pid("p2pd")
    machine.install(newer)
    assert machine.is_active("p2pd")
    assert machine.main_pid("p2pd") not in (0, old)
    assert (machine.root / "etc/p2pd/p2pd.toml").read_text() == edited
    assert "site edited" in machine.show("p2pd", "StatusText")

    identity = (machine.root / "var/lib/p2pd/node-id").read_text()
    machine.run("dpkg", "--remove", "p2pd")
    assert not machine.is_active("p2pd")
    assert (machine.root / "var/lib/p2pd/node-id").read_text() == identity
    assert (machine.root / "etc/p2pd/p2pd.toml").read_text() == edited
    machine.install(newer)
    assert machine.is_active("p2pd"), "installed again it is the node it was"
    assert (machine.root / "var/lib/p2pd/node-id").read_text() == identity
    machine.run("dpkg", "--purge", "p2pd")
    after = machine.files()
    assert {path for path in after - before if not path.endswith("-")} <= {
        "/etc/systemd/system/p2pd.service.d"
    }
    assert machine.run("getent", "passwd", "p2pd", check=False) == ""
    assert machine.run("pgrep", "-f", "p2pd", check=False) == ""


def _check_network(machine: Machine) -> None:
    """Hardened as it is: multicast is joined, and libtorrent listens on the LAN."""
    wait_for(lambda: "announced by multicast" in machine.run("journalctl", "-u", "p2pd"), "the announcement")
    listening = machine.run("ss", "-H", "-tuln")
    for expected in (r"127\.0\.0\.1:7780 ", r"0\.0\.0\.0:7781 ", r"10\.9\.0\.1%lan0:7782 ", r":5353 "):
        assert re.search(expected, listening), listening


def _check_commands(machine: Machine) -> None:
    socket = machine.sh("stat -c '%U %G %a' /run/p2pd/p2pd.sock").split()
    assert socket == ["p2pd", "p2pd", "660"], machine.run("journalctl", "-u", "p2pd")
    assert json.loads(machine.run("p2pd", "status", "--json"))["site"] == "default"
    assert machine.run("p2pd", "--version").startswith("p2pd ")
    complete = "source /usr/share/bash-completion/completions/p2pd; COMP_WORDS=(p2pd ''); COMP_CWORD=1; "
    complete += '_p2pd_completion p2pd; echo "${COMPREPLY[@]}"'
    assert "run" in machine.sh(complete).split()
    asked = "exec 3<>/dev/tcp/127.0.0.1/7780; printf 'GET /v2/ HTTP/1.0\\r\\n\\r\\n' >&3; head -n1 <&3"
    assert " 200 " in machine.sh(asked)


def _check_recovery(machine: Machine) -> None:
    """Killed, and hanging, it is back by itself."""
    override = machine.root / "etc/systemd/system/p2pd.service.d"
    override.mkdir()
    (override / "fast.conf").write_text("[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\nRestartSec=100ms\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "p2pd")
    for sign in ("KILL", "STOP"):
        old = machine.main_pid("p2pd")
        machine.run("kill", f"-{sign}", str(old))
        wait_for(partial(_is_replaced, machine, old), f"a new process after SIG{sign}")
    assert "Watchdog timeout" in machine.run("journalctl", "-u", "p2pd")
    assert machine.show("p2pd", "NRestarts") == "2"
    (override / "fast.conf").unlink()
    machine.run("systemctl", "daemon-reload")


def _is_replaced(machine: Machine, old: int) -> bool:
    return machine.main_pid("p2pd") not in (0, old) and machine.is_active("p2pd")


def test_a_mistake_in_the_configuration_is_told_once(packages: dict[str, Path], boot: Boot) -> None:
    machine = boot()
    (machine.root / "etc/p2pd").mkdir()
    (machine.root / "etc/p2pd/seeder.toml").write_text('[seeder]\nlisten = "nowhere"\n')
    machine.install(packages["p2pd-seeder"])
    wait_for(lambda: machine.show("p2pd-seeder", "ActiveState") == "failed", "the end of the seeder")
    assert machine.show("p2pd-seeder", "NRestarts") == "0"
    assert "seeder.listen" in machine.run("journalctl", "-u", "p2pd-seeder")


def test_from_the_first_pull_to_the_purge(packages: dict[str, Path], newer: Path, boot: Boot) -> None:
    """containerd pulls through node and seeder while the node's package is replaced; then all goes."""
    machine = boot("/usr/bin/containerd", "/usr/bin/ctr", "/usr/bin/docker-registry")
    image = synthetic_image(seed=7, size=48 << 20, layers=2)
    _start_runtime(machine)
    _push(machine, image)
    before = machine.files()
    _set_up(machine, packages)
    _pull_while_updating(machine, newer)
    for blob in image.content:
        with (machine.root / f"var/lib/containerd/{STORE}/blobs/sha256/{blob.digest.hex}").open("rb") as body:
            assert hashlib.file_digest(body, "sha256").hexdigest() == blob.digest.hex
    _check_answers(machine)
    _check_drop_ins(machine, image.content[-1].digest)

    machine.run("dpkg", "--purge", *packages)
    others = ("/var/lib/containerd", "/var/lib/registry", "/data", "/etc/systemd/system/p2pd.service.d")
    after = {path for path in machine.files() if not path.startswith(others) and not path.endswith("-")}
    assert after - before == set(), "the runtime's configuration and the state are as before"
    assert machine.run("getent", "passwd", *packages, check=False) == ""
    assert machine.run("pgrep", "-f", "p2pd", check=False) == ""


def _push(machine: Machine, image: Image) -> None:
    push = "import sys; from benchmarks.testbed.images import *; from pathlib import Path; "
    push += "push_image(Image.load(Path(sys.argv[1])), sys.argv[2], 'app', '1')"
    subprocess.run(
        ["nsenter", "-t", str(machine.leader), "-n", sys.executable, "-c", push, image.directory, f"http://{ORIGIN}"],
        check=True,
        cwd=ROOT,
    )  # fmt: skip


def _set_up(machine: Machine, packages: dict[str, Path]) -> None:
    """As docs/quickstart.md has it."""
    for name, config, text in (
        ("p2pd-seeder", "seeder.toml", UPSTREAM),
        ("p2pd", "p2pd.toml", '[wan]\nseeders = ["http://127.0.0.1:7790"]\n' + UPSTREAM),
    ):
        machine.install(packages[name])
        (machine.root / "etc/p2pd" / config).write_text(text)
        machine.run("systemctl", "restart", name)
    socket = machine.root / "run/containerd/containerd.sock"
    socket.unlink()
    machine.run("p2pd", "runtime", "install", "containerd", "--restart")
    wait_for(socket.exists, "containerd, restarted")


def _pull_while_updating(machine: Machine, newer: Path) -> None:
    machine.sh("tc qdisc add dev lo root tbf rate 100mbit burst 256k latency 300ms")
    fetch = (
        "ctr",
        "--debug",
        "content",
        "fetch",
        "--hosts-dir",
        "/etc/containerd/certs.d",
        f"{ORIGIN}/app:1",
    )
    with subprocess.Popen(
        machine.command(*fetch), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as pull:
        wait_for(lambda: _received(machine), "the first bytes")
        machine.sh("tc qdisc change dev lo root tbf rate 2mbit burst 256k latency 300ms")
        machine.install(newer)
        assert pull.poll() is None, "the pull was over before the update"
        machine.sh("tc qdisc del dev lo root")
        _, said = pull.communicate(timeout=60)
    assert pull.returncode == 0, said[-2000:]


def _check_answers(machine: Machine) -> None:
    """The commands of both packages, each from its own environment; the node finds itself well."""
    assert json.loads(machine.run("p2pd", "status", "--json"))["total"]["seeder"] > 0
    assert json.loads(machine.run("p2pd-seeder", "status", "--json"))["served"] > 0
    for command in ("images", "blobs", "gc --dry-run", "config show"):
        for program in ("p2pd", "p2pd-seeder"):
            assert json.loads(machine.run(program, *command.split(), "--json")), (program, command)
    assert json.loads(machine.run("p2pd", "verify", "--json").splitlines()[-1])["bad"] == 0
    for command in ("sites", "usage"):
        assert json.loads(machine.run("p2pd-seeder", command, "--json")), command
    said = machine.run("p2pd", "doctor", "--image", f"{ORIGIN}/app:1", "--json", check=False)
    levels = {finding["check"]: finding["level"] for finding in json.loads(said)["findings"]}
    for check in ("daemon", "ports", "seeder", "registry", "clock", "disk", "budget", "runtime", "pull"):
        assert levels[check] == "ok", said


def _check_drop_ins(machine: Machine, layer: Digest) -> None:
    """The units' changes of docs/operating.md: hardened as it is, the node serves from containerd's files."""
    page = (ROOT / "docs/operating.md").read_text()
    drop_ins = dict(
        re.findall(r"(?ms)^```ini\n# (/etc/systemd/system/p2pd\.service\.d/\S+)\n(.*?)^```$", page)
    )
    assert len(drop_ins) == page.count("```ini") >= 3
    machine.run("systemctl", "stop", "p2pd")
    machine.run("rm", "-r", "/var/lib/p2pd/store")
    machine.run("mkdir", "-p", "/data/p2pd", "/etc/systemd/system/p2pd.service.d")
    for path, text in drop_ins.items():
        (machine.root / path[1:]).write_text(text)
    config = '[wan]\ndirect = false\n[runtime]\ncontainerd_root = "/run/p2pd-containerd"\n' + UPSTREAM
    (machine.root / "etc/p2pd/p2pd.toml").write_text(config)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "p2pd")
    assert "p2pd.service.d" not in machine.run("journalctl", "-b"), "systemd takes every line"
    assert "HTTPS_PROXY=" in machine.show("p2pd", "Environment")
    assert "/data/p2pd" in machine.show("p2pd", "ReadWritePaths")
    url = f"http://127.0.0.1:7780/v2/app/blobs/{layer}?ns={ORIGIN}"
    read = "import hashlib, sys, urllib.request as u; "
    read += "print(hashlib.file_digest(u.urlopen(sys.argv[1]), 'sha256').hexdigest())"
    assert machine.run("python3", "-c", read, url).strip() == layer.hex
    kept = [path for path in (machine.root / "var/lib/p2pd/store/blobs").rglob("*") if path.is_file()]
    assert kept == [], "no second copy"


STORE = "io.containerd.content.v1.content"


def _received(machine: Machine) -> int:
    ingest = machine.root / f"var/lib/containerd/{STORE}/ingest"
    return sum(path.stat().st_size for path in ingest.glob("*/data"))


def _start_runtime(machine: Machine) -> None:
    """containerd and a registry, as transient units."""
    registry = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": "/var/lib/registry"}},
        "http": {"addr": ORIGIN},
    }
    (machine.root / "etc/registry.yml").write_text(json.dumps(registry))
    machine.run("systemd-run", "--unit=registry", "docker-registry", "serve", "/etc/registry.yml")
    machine.run("systemd-run", "--unit=containerd", "containerd")
    wait_for(lambda: ":5000 " in machine.run("ss", "-H", "-tln"), "the registry")
    wait_for(lambda: (machine.root / "run/containerd/containerd.sock").exists(), "containerd")
