"""What the front end builds on, asked of the real containerd: when it resumes, and when it goes on.

Two front ends on loopback, a mirror that may be broken and a faithful upstream behind it, and
`ctr content fetch` through a containerd of the test's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from p2pd.io.registry_app import build_app
from p2pd.io.serve import serve
from p2pd.model import errors
from p2pd.model.content import OCI_MANIFEST
from p2pd.wire.registry_api import Upstreams
from tests.support.memory_content import MemoryContent
from tests.support.waiting import until

REGISTRY = "registry.test"
LAYER = random.Random(3).randbytes(3_000_000)
CUT = 1_000_000


def missing() -> str | None:
    for tool in ("containerd", "ctr"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (Debian package containerd)"
    return None if os.geteuid() == 0 else "containerd needs root"


pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(missing() is not None, reason=f"no real containerd: {missing()}"),
]


@dataclass
class Host:
    """A front end, and the requests it answered: (method, kind, Range, status)."""

    content: MemoryContent = field(default_factory=MemoryContent)
    seen: list[tuple[str, str, str, int]] = field(default_factory=list)
    port: int = 0

    def recording(self, app: ASGIApp) -> ASGIApp:
        async def record(scope: Scope, receive: Receive, send: Send) -> None:
            wanted = dict(scope["headers"]).get(b"range", b"").decode()

            async def see(message: Message) -> None:
                if message["type"] == "http.response.start":
                    kind = scope["path"].split("/")[-2]
                    if scope["path"].endswith(str(self.layer)):
                        kind = "layer"
                    self.seen.append((scope["method"], kind, wanted, message["status"]))
                await send(message)

            await app(scope, receive, see)

        return record

    def __post_init__(self) -> None:
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}}).encode()
        self.layer, self.blob = self.content.add_blob(LAYER)
        config_digest, _ = self.content.add_blob(config)
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": str(config_digest),
                    "size": len(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                        "digest": str(self.layer),
                        "size": len(LAYER),
                    }
                ],
            }
        ).encode()
        self.manifest = self.content.add_manifest("v1", body).descriptor.digest

    def layer_requests(self) -> list[tuple[str, int]]:
        return [(wanted, status) for _, kind, wanted, status in self.seen if kind == "layer"]


@dataclass
class Bench:
    """The two hosts, and the containerd that is told of them."""

    mirror: Host
    upstream: Host
    socket: Path
    hosts: Path

    def ctr(self, *args: str) -> list[str]:
        return ["ctr", "--address", str(self.socket), *args]

    def fetch_command(self) -> list[str]:
        reference = f"{REGISTRY}/team/app:v1"
        return self.ctr("content", "fetch", "--all-platforms", "--hosts-dir", str(self.hosts), reference)

    async def fetch(self) -> str:
        """Fetch the image, check the stored layer's bytes; returns the error text, empty when all is well."""
        with trio.fail_after(25):
            done = await trio.run_process(
                self.fetch_command(), check=False, capture_stdout=True, capture_stderr=True
            )
            if done.returncode:
                return done.stderr.decode() or "failed"
            stored = await trio.run_process(
                self.ctr("content", "get", str(self.mirror.layer)), capture_stdout=True
            )
        assert hashlib.sha256(stored.stdout).hexdigest() == self.mirror.layer.hex
        return ""


@asynccontextmanager
async def containerd(directory: Path) -> AsyncIterator[Path]:
    """A containerd with nothing but its content store, stopped at the end; yields its socket."""
    address = directory / "c.sock"
    config = directory / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{directory}/root"\nstate = "{directory}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt",'
        ' "io.containerd.internal.v1.restart"]\n'
        f'[grpc]\naddress = "{address}"\n[ttrpc]\naddress = "{address}.ttrpc"\n'
    )
    command = ["containerd", "--config", str(config)]
    with (directory / "log").open("wb") as log:
        async with trio.open_nursery() as nursery:
            run = partial(trio.run_process, command, stdout=log, stderr=log, check=False)
            process: trio.Process = await nursery.start(run)
            await until(lambda: address.exists() or process.poll() is not None)
            assert process.poll() is None, (directory / "log").read_text()[-2000:]
            yield address
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(directory: Path, **settings: float) -> AsyncIterator[Bench]:
    """`settings` are those of the mirror's `build_app`."""
    mirror, upstream = Host(), Host()
    allowed = Upstreams({REGISTRY: REGISTRY})
    async with trio.open_nursery() as nursery:
        for host, options in ((mirror, settings), (upstream, {})):
            app = build_app(host.content, upstreams=allowed, **options)  # type: ignore[arg-type] # times only

            async def start(
                app: ASGIApp, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED
            ) -> None:
                await serve(app, host="127.0.0.1", port=0, graceful_s=1, task_status=task_status)

            _, host.port = await nursery.start(start, host.recording(app))
        hosts = directory / "hosts" / REGISTRY
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(
            f'server = "http://127.0.0.1:{upstream.port}"\n'
            f'[host."http://127.0.0.1:{mirror.port}"]\ncapabilities = ["pull", "resolve"]\n'
        )
        async with containerd(directory) as address:
            yield Bench(mirror, upstream, address, hosts.parent)
        nursery.cancel_scope.cancel()


async def test_all_comes_from_a_sound_mirror(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        assert await bench.fetch() == ""
        assert bench.upstream.seen == []
        assert bench.mirror.layer_requests() == [("", 200)]
        assert bench.mirror.seen[0][:2] == ("HEAD", "manifests")
        assert bench.mirror.content.calls[0][1].registry == REGISTRY


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFound("not here"),
        errors.Denied("not allowed"),
        errors.Unavailable("no source"),
        errors.RateLimited("slow down", 60),
        errors.WrongContent("bad everywhere"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("kind", ["manifest", "blob"])
async def test_before_headers_it_goes_on_to_the_upstream(tmp_path: Path, kind: str, error: Exception) -> None:
    async with running(tmp_path) as bench:
        bench.mirror.content.errors[kind] = error
        assert await bench.fetch() == ""
        answered = {(method, what) for method, what, _, status in bench.upstream.seen if status == 200}
        if kind == "manifest":
            assert answered == {("HEAD", "manifests"), ("GET", "manifests")}
        else:
            assert answered == {("GET", "blobs"), ("GET", "layer")}


async def test_a_source_that_does_not_answer_costs_the_deadline_only(tmp_path: Path) -> None:
    async with running(tmp_path, deadline=0.3) as bench:
        bench.mirror.content.hanging = {"manifest", "blob"}
        assert await bench.fetch() == ""
        assert {status for *_, status in bench.mirror.seen} == {503}


async def test_a_short_body_is_resumed_and_after_a_503_ended_at_the_upstream(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        bench.mirror.blob.error, bench.mirror.blob.fail_at = errors.Unavailable("all sources lost"), CUT
        assert await bench.fetch() == ""
        assert bench.mirror.layer_requests() == [("", 200), (f"bytes={CUT}-", 503)]
        assert bench.upstream.layer_requests() == [(f"bytes={CUT}-", 206)]
        assert bench.mirror.blob.open_streams == 0


async def test_a_source_that_is_back_ends_its_own_pull_by_range(tmp_path: Path) -> None:
    async with running(tmp_path, cooldown=0) as bench:
        blob = bench.mirror.blob
        blob.error, blob.fail_at, blob.failures = errors.Unavailable("a source lost"), CUT, 1
        assert await bench.fetch() == ""
        assert bench.mirror.layer_requests() == [("", 200), (f"bytes={CUT}-", 206)]
        assert bench.upstream.seen == []


async def test_a_client_that_is_killed_frees_its_stream(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        blob = bench.mirror.blob
        blob.stall_at = CUT
        async with trio.open_nursery() as nursery:
            run = partial(trio.run_process, bench.fetch_command(), capture_stdout=True, check=False)
            client: trio.Process = await nursery.start(run)
            await until(lambda: blob.open_streams == 1)
            client.kill()
            await until(lambda: blob.open_streams == 0)
        blob.stall_at = None
        assert await bench.fetch() == ""
        assert bench.upstream.seen == []
