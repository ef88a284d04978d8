"""What `p2pd runtime install` writes, asked of the real clients: they use the mirror, or go on without."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pd.app.runtimes.draft import Mirror
from p2pd.app.runtimes.manage import apply, plan_install, plan_remove
from p2pd.io.registry_app import build_app
from p2pd.io.serve import serve
from p2pd.io.system_files import SystemFiles
from p2pd.model.address import Address
from p2pd.model.upstream import UpstreamSpec
from p2pd.wire.registry_api import Upstreams
from tests.support.waiting import until
from tests.system.test_containerd_rules import REGISTRY, Host, containerd, missing

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(missing() is not None, reason=f"no real containerd: {missing()}"),
]

REFERENCE = f"{REGISTRY}/team/app:v1"
CRI_2 = "io.containerd.grpc.v1.cri"


@dataclass
class Pair:
    """A mirror and the upstream, each with what it was asked."""

    mirror: Host
    upstream: Host
    stop_mirror: trio.CancelScope

    @property
    def told(self) -> Mirror:
        spec = UpstreamSpec(REGISTRY, f"http://127.0.0.1:{self.upstream.port}")
        return Mirror(Address("127.0.0.1", self.mirror.port), (spec,))


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    mirror, upstream, stop = Host(), Host(), trio.CancelScope()
    allowed = Upstreams({REGISTRY: REGISTRY}, REGISTRY)

    async def run(
        host: Host,
        scope: trio.CancelScope,
        task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        app = host.recording(build_app(host.content, upstreams=allowed))
        with scope:
            await serve(app, host="127.0.0.1", port=0, graceful_s=1, task_status=task_status)

    async with trio.open_nursery() as nursery:
        _, mirror.port = await nursery.start(run, mirror, stop)
        _, upstream.port = await nursery.start(run, upstream, trio.CancelScope())
        yield Pair(mirror, upstream, stop)
        nursery.cancel_scope.cancel()


async def succeeds(*command: str | Path) -> bool:
    with trio.fail_after(30):
        done = await trio.run_process([str(each) for each in command], check=False, capture_stderr=True)
    print(done.stderr.decode())
    return done.returncode == 0


async def test_containerd_pulls_through_the_mirror_and_goes_on_without_it(tmp_path: Path) -> None:
    files = SystemFiles(tmp_path / "root")
    async with pair() as hosts, containerd(tmp_path) as address:
        apply(files, plan_install("containerd", files, hosts.told))
        fetch = partial(
            succeeds,
            *("ctr", "--address", address, "content", "fetch", "--all-platforms"),
            *("--hosts-dir", tmp_path / "root/etc/containerd/certs.d", REFERENCE),
        )
        assert await fetch()
        assert hosts.mirror.seen
        assert hosts.upstream.seen == []
        await trio.run_process(["ctr", "--address", str(address), "content", "rm", str(hosts.mirror.layer)])
        # containerd takes a removed blob back for as long as its collector has left the file there.
        hex_digest = hosts.mirror.layer.hex
        await until(lambda: not any(path.is_file() for path in tmp_path.rglob(hex_digest)))
        hosts.stop_mirror.cancel()
        assert await fetch()
        assert ("GET", "layer") in {(method, kind) for method, kind, *_ in hosts.upstream.seen}


def _dump(path: Path) -> dict[str, Any]:
    """What a containerd started with the file would go by."""
    done = subprocess.run(
        ["containerd", "--config", path, "config", "dump"], capture_output=True, text=True, check=True
    )
    return tomllib.loads(done.stdout)


def _default_config() -> str:
    return subprocess.run(
        ["containerd", "config", "default"], capture_output=True, text=True, check=True
    ).stdout


def _round_trip(root: Path, files: SystemFiles, path: Path) -> object:
    """Install and remove; the config_path that was in force between."""
    tree = {each: each.read_bytes() for each in root.rglob("*") if each.is_file()}
    mirror = Mirror(Address("127.0.0.1", 7780), (UpstreamSpec(REGISTRY, f"https://{REGISTRY}"),))
    apply(files, plan_install("containerd", files, mirror))
    told = _dump(path)["plugins"][CRI_2]["registry"]["config_path"]
    apply(files, plan_remove("containerd", files, mirror))
    assert {each: each.read_bytes() for each in root.rglob("*") if each.is_file()} == tree
    return told


@pytest.mark.parametrize(
    "before",
    [
        None,
        "version = 2\n",
        f'version = 2\n[plugins]\n  [plugins."{CRI_2}"]\n    sandbox_image = "x"\n',
        "the default",
    ],
)
def test_containerd_reads_the_configuration_as_it_is_meant(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "etc/containerd/config.toml"
    path.parent.mkdir(parents=True)
    if before is not None:
        path.write_text(_default_config() if before == "the default" else before)
    assert _round_trip(tmp_path, SystemFiles(tmp_path), path) == "/etc/containerd/certs.d"


def test_containerd_reads_it_in_the_last_import_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, drop_in, hosts = tmp_path / "config.toml", tmp_path / "conf.d/cri.toml", tmp_path / "certs.d"
    drop_in.parent.mkdir()
    drop_in.write_text(f'version = 2\n[plugins."{CRI_2}"]\nsandbox_image = "x"\n')
    path.write_text(f'version = 2\nimports = ["{drop_in}"]\n[plugins."{CRI_2}"]\nsandbox_image = "y"\n')
    # An import is a path of the system itself, so this works without a root.
    monkeypatch.setattr("p2pd.app.runtimes.containerd.CONFIG", str(path))
    monkeypatch.setattr("p2pd.app.runtimes.containerd.HOSTS", str(hosts))
    assert _round_trip(tmp_path, SystemFiles(), path) == str(hosts)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed (Debian package skopeo)")
async def test_skopeo_pulls_through_the_mirror_and_goes_on_without_it(tmp_path: Path) -> None:
    files = SystemFiles(tmp_path / "root")
    script = 'mount --bind "$1" /etc/containers && shift && exec "$@"'
    async with pair() as hosts:
        apply(files, plan_install("podman", files, hosts.told))
        copy = partial(
            succeeds,
            *("unshare", "--mount", "sh", "-c", script, "sh", tmp_path / "root/etc/containers"),
            *("env", f"HOME={tmp_path}", "skopeo", "--insecure-policy", "copy", f"docker://{REFERENCE}"),
        )
        assert await copy(f"dir:{tmp_path}/first")
        assert {kind for _, kind, *_ in hosts.mirror.seen} >= {"manifests", "layer"}
        assert [each for each in hosts.upstream.seen if each[1] != ""] == []
        hosts.stop_mirror.cancel()
        assert await copy(f"dir:{tmp_path}/second")
        assert {kind for _, kind, *_ in hosts.upstream.seen} >= {"manifests", "layer"}
