"""`p2pd runtime`, on a tree of real files."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from p2pd.app.cli import main
from p2pd.app.commands import runtime
from p2pd.model.errors import OurFault

CONFIG = "/etc/containerd/config.toml"
THEIRS = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = ""\n# last'


class System:
    """A root directory, and the configuration of a p2pd with one upstream."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.config = directory / "p2pd.toml"
        self.config.write_text('[upstreams."ghcr.io"]\nurl = "https://ghcr.io"\n')
        (self.root / "etc").mkdir(parents=True)

    def run(self, action: str, *words: str) -> int:
        return main(["runtime", action, *words, "--root", str(self.root), "--config", str(self.config)])

    def write(self, path: str, text: str) -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def tree(self) -> dict[str, tuple[int, bytes | None]]:
        return {
            str(path.relative_to(self.root)): (
                path.stat().st_mode,
                path.read_bytes() if path.is_file() else None,
            )
            for path in self.root.rglob("*")
        }


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


@pytest.mark.parametrize("name", ["containerd", "docker", "podman", "crio"])
def test_install_twice_and_remove_twice(
    name: str, system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    system.config.write_text("")
    system.write(CONFIG, THEIRS).chmod(0o640)
    system.write("/etc/docker/daemon.json", '{\n"debug":  true}')
    system.write("/etc/containers/registries.conf", "")
    before = system.tree()
    assert system.run("install", name) == 0
    once = system.tree()
    assert once != before
    capsys.readouterr()
    assert system.run("show", name, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "installed"
    assert system.run("install", name) == 0
    assert "nothing to change" in capsys.readouterr().out
    assert system.tree() == once
    for _ in range(2):
        assert system.run("remove", name) == 0
        assert system.tree() == before


def test_a_backup_stays_as_long_as_it_differs(system: System) -> None:
    file = system.write(CONFIG, THEIRS)
    backup = file.with_name("config.toml.before-p2pd")
    assert system.run("install", "containerd") == 0
    assert backup.read_text() == THEIRS
    file.write_text(file.read_text() + "\n[debug]\n")
    assert system.run("remove", "containerd") == 0
    assert file.read_text().endswith("[debug]\n")
    assert backup.read_text() == THEIRS


@pytest.mark.parametrize(("name", "status"), [("containerd", 0), ("podman", 0), ("crio", 0), ("docker", 2)])
def test_the_way_back_needs_a_configuration_of_docker_alone(name: str, status: int, system: System) -> None:
    system.config.write_text("")
    before = system.tree()
    assert system.run("install", name) == 0
    system.config.write_text("[nonsense")
    assert system.run("remove", name) == status
    assert (system.tree() == before) is (status == 0)


def test_a_dry_run_prints_a_patch_and_changes_nothing(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    system.write(CONFIG, THEIRS)
    before = system.tree()
    assert system.run("install", "containerd", "--dry-run") == 0
    patch = capsys.readouterr()
    assert system.tree() == before
    assert "systemctl restart containerd" in patch.err
    if shutil.which("patch"):
        subprocess.run(["patch", "-s", "-p1"], input=patch.out, text=True, cwd=system.root, check=True)
        patched = system.tree()
        assert system.run("install", "containerd") == 0
        assert patched == {path: facts for path, facts in system.tree().items() if "before-p2pd" not in path}


def test_what_cannot_be_done_safely_is_not_begun(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    file = system.write("/etc/containers/registries.conf.d/x.conf", '[[registry]]\nlocation = "ghcr.io"\n')
    before = system.tree()
    assert system.run("install", "podman") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"p2pd: {Path('/') / file.relative_to(system.root)} configures ghcr.io already" in err
    assert system.tree() == before
    assert system.run("install", "podman", "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["refusals"]) == 1


def test_registries_can_be_chosen(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    system.config.write_text("")
    assert system.run("install", "containerd", "--registry", "quay.io") == 0
    assert [path for path in system.tree() if path.endswith("hosts.toml")] == [
        "etc/containerd/certs.d/quay.io/hosts.toml"
    ]
    assert system.run("install", "containerd", "--registry", "quay") == 2
    assert "quay is not among [upstreams]" in capsys.readouterr().err


def test_states_are_told_apart(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    def state() -> str:
        capsys.readouterr()
        assert system.run("show", "containerd", "--json") == 0
        [found] = json.loads(capsys.readouterr().out)
        return str(found["state"])

    assert state() == "not installed"
    assert system.run("install", "containerd") == 0
    assert state() == "installed"
    system.config.write_text('[mirror]\nlisten = "127.0.0.1:9000"\n')
    assert state() == "out of date"
    system.write("/etc/containerd/certs.d/quay.io/ca.crt", "")
    assert state() == "refused"


def test_restart_only_when_asked_and_needed(
    system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(runtime, "run_program", calls.append)
    assert system.run("install", "containerd") == 0
    assert "To make it count: systemctl restart containerd" in capsys.readouterr().err
    assert calls == []
    assert system.run("remove", "containerd", "--restart") == 0
    assert calls == [("systemctl", "restart", "containerd")]
    assert "To make it count" not in capsys.readouterr().err
    assert system.run("remove", "containerd", "--restart") == 0
    assert len(calls) == 1


def test_a_restart_that_fails_is_one_line(
    system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_command: object) -> None:
        raise OurFault("systemctl restart containerd failed: x")

    monkeypatch.setattr(runtime, "run_program", fail)
    assert system.run("install", "containerd", "--restart") == 1
    assert capsys.readouterr().err.endswith("p2pd: systemctl restart containerd failed: x\n")


def test_a_file_that_cannot_be_written_leaves_all_as_it_was(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    system.write(CONFIG, THEIRS).with_name("config.toml.p2pd-new").mkdir()
    before = system.tree()
    assert system.run("install", "containerd") == 1
    assert capsys.readouterr().err.startswith(f"p2pd: cannot write {system.root}{CONFIG}: ")
    after = {path: facts for path, facts in system.tree().items() if "before-p2pd" not in path}
    assert {path: facts for path, facts in after.items() if facts[1] is not None} == {
        path: facts for path, facts in before.items() if facts[1] is not None
    }
