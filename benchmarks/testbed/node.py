"""A node of the site: its own containerd, its hosts.toml, its p2pd."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx

from benchmarks.testbed.daemons import POLL_S, READY_S, Config, check_alive, start_daemon, toml, wait_http
from benchmarks.testbed.images import Image
from benchmarks.testbed.namespaces import Outer, TestbedError
from benchmarks.testbed.network import ORIGIN_IP, SEEDER_IP, LinkBytes, interface_bytes, node_ip
from benchmarks.testbed.process import Process
from p2pd.model.content import Descriptor

__all__ = ["MIRROR_URL", "ORIGIN", "SEEDER_URL", "FetchOutcome", "Node", "PendingFetch"]

T = TypeVar("T")

ORIGIN = f"{ORIGIN_IP}:5000"
"""The registry part of every reference."""

MIRROR_URL = "http://127.0.0.1:7780"
SEEDER_URL = f"http://{SEEDER_IP}:7790"

_LONGEST_SOCKET_PATH = 107


@dataclass(frozen=True, slots=True)
class FetchOutcome:
    """How one `ctr` ended: seconds since its release, exit code, its last line."""

    seconds: float
    code: int
    message: str


class PendingFetch:
    """A `ctr` that waits at the gate; `go` lets it begin."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._went = 0.0

    def go(self) -> None:
        self._went = time.monotonic()
        self.process.release()

    def wait(self, timeout: float) -> FetchOutcome:
        """Block until ctr has ended; after `timeout` seconds kill it and say so with code -9."""
        try:
            code = self.process.wait(timeout)
        except TimeoutError:
            code = self.process.kill()
        seconds = time.monotonic() - self._went
        return FetchOutcome(seconds, code, self.process.last_words(1))


class Node:
    """Node number `index`. Everything is off at first; `reset` makes it as new."""

    def __init__(self, outer: Outer, index: int, snapshotter: str) -> None:
        self._outer = outer
        self._snapshotter = snapshotter
        self.index = index
        self.name = f"n{index}"
        self.ip = node_ip(index)
        self.home = outer.site / self.name
        self.containerd: Process | None = None
        self.p2pd: Process | None = None
        if len(str(self._socket)) > _LONGEST_SOCKET_PATH - len(".ttrpc"):
            raise TestbedError(f"{outer.work} is too long a path for sockets: set TMPDIR to a shorter one")
        self.reset()

    @property
    def files(self) -> Path:
        """Its home directory as this process sees it."""
        return self._outer.outside(self.home)

    @property
    def _socket(self) -> Path:
        return self.home / "containerd.sock"

    @property
    def _store(self) -> Path:
        return self.files / "containerd" / "io.containerd.content.v1.content"

    def reset(self) -> None:
        """Stop everything and forget everything: empty containerd, empty p2pd."""
        for process in (self.p2pd, self.containerd):
            if process is not None:
                process.kill()
        self.p2pd = self.containerd = None
        if self.files.exists():
            shutil.rmtree(self.files)
        self.files.mkdir()

    # containerd

    def start_containerd(self) -> None:
        """Start a containerd of its own; what it already held it still holds."""
        config: Config = {
            "": {
                "version": 2,
                "root": str(self.home / "containerd"),
                "state": str(self.home / "state"),
                # What is off needs /dev/mapper, cgroups or a CNI, and nothing here asks for it.
                "disabled_plugins": [
                    "io.containerd.grpc.v1.cri",
                    "io.containerd.snapshotter.v1.aufs",
                    "io.containerd.snapshotter.v1.btrfs",
                    "io.containerd.snapshotter.v1.devmapper",
                    "io.containerd.snapshotter.v1.zfs",
                    "io.containerd.internal.v1.opt",
                ],
            },
            "grpc": {"address": str(self._socket)},
        }
        (self.files / "containerd.toml").write_text(toml(config))
        command: list[str | Path] = ["containerd", "--config", self.home / "containerd.toml"]
        self.containerd = self._outer.popen(command, self.name, log=self.home / "containerd.log")

    def kill_containerd(self) -> None:
        """End it at once, as a power cut would; what it holds stays."""
        if self.containerd is not None:
            self.containerd.kill()
        self._outer.outside(self._socket).unlink(missing_ok=True)

    def lose_containerd(self) -> None:
        """End it, and forget all it held."""
        self.kill_containerd()
        shutil.rmtree(self.files / "containerd", ignore_errors=True)

    def wait_containerd(self) -> None:
        """Wait until it serves; raises TestbedError."""
        deadline = time.monotonic() + READY_S
        while not self._outer.outside(self._socket).exists():
            check_alive(self.containerd, deadline)
            time.sleep(POLL_S)
        self.ctr("version")

    def ctr(self, *arguments: str | Path, timeout: float = 60.0) -> str:
        """Output of a `ctr` command; raises TestbedError when it fails."""
        command = ["ctr", "--address", self._socket, *arguments]
        return self._outer.run(command, self.name, timeout=timeout).stdout

    def use_mirror(self, url: str | None) -> None:
        """Write hosts.toml: pull through `url` first, or (None) from the origin alone."""
        host = url if url is not None else f"http://{ORIGIN}"
        directory = self.files / "certs.d" / ORIGIN
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "hosts.toml").write_text(
            f'server = "http://{ORIGIN}"\n\n[host."{host}"]\n  capabilities = ["pull", "resolve"]\n'
        )

    def prepare_fetch(self, ref: str, client: str = "fetch", log_name: str = "ctr.log") -> PendingFetch:
        """A `ctr content fetch` (client "fetch") or `ctr images pull` ("pull"), held at the gate.

        Clients that run at the same time want a log each: the end of it is the message of their outcome.
        """
        # --debug: without it ctr draws progress by asking containerd for its state ten times a second.
        command: list[str | Path] = ["ctr", "--debug", "--address", self._socket]
        command += ["content", "fetch"] if client == "fetch" else ["images", "pull"]
        command += ["--hosts-dir", self.home / "certs.d"]
        if client != "fetch":
            command += ["--snapshotter", self._snapshotter]
        log = self.home / log_name
        return PendingFetch(self._outer.popen([*command, ref], self.name, log=log, gated=True))

    def fetch(self, ref: str, client: str = "fetch", timeout: float = 120.0) -> FetchOutcome:
        """Fetch and wait; look at `code`."""
        pending = self.prepare_fetch(ref, client)
        pending.go()
        return pending.wait(timeout)

    def remove_image(self, ref: str) -> None:
        """Have containerd forget an image, and wait until it has deleted what only that one needed."""
        self.ctr("images", "rm", "--sync", ref)

    def held_bytes(self) -> int:
        """Bytes in containerd's content store, finished or arriving."""
        total = 0
        for place in (self._store / "blobs" / "sha256", self._store / "ingest"):
            try:
                with os.scandir(place) as entries:
                    for entry in entries:
                        path = Path(entry.path) / "data" if entry.is_dir() else Path(entry.path)
                        total += path.stat().st_size
            except FileNotFoundError:
                continue  # not begun, or committed while we looked
        return total

    def wrong_content(self, image: Image) -> list[Descriptor]:
        """Hash each blob of `image` in containerd's store: those that are absent or not their digest."""
        return [blob for blob in image.content if not self._is_right(blob)]

    def _is_right(self, blob: Descriptor) -> bool:
        try:
            with (self._store / "blobs" / "sha256" / blob.digest.hex).open("rb") as body:
                return hashlib.file_digest(body, "sha256").hexdigest() == blob.digest.hex
        except FileNotFoundError:
            return False

    # p2pd

    def start_p2pd(self, changes: Config | None = None, wrapper: Sequence[str] = ()) -> None:
        """Start the checkout's p2pd; `changes` replace or add keys of its configuration.

        `wrapper` is a command that executes it in another setting.
        """
        config: dict[str, dict[str, object]] = {
            "node": {"site": "edge", "state_dir": str(self.home / "p2pd")},
            "mirror": {"listen": "127.0.0.1:7780"},
            "lan": {"control": "0.0.0.0:7781", "swarm_port": 7782, "multicast": True, "peers": []},
            "wan": {"seeders": [SEEDER_URL]},
            f'upstreams."{ORIGIN}"': {"url": f"http://{ORIGIN}"},
            "admin": {"socket": str(self.home / "p2pd.sock")},
            "log": {"level": "info", "format": "json"},
        }
        self.p2pd = start_daemon(self._outer, self.name, "p2pd", config, changes, wrapper)

    def wait_p2pd(self) -> None:
        """Wait until its mirror answers; raises TestbedError."""
        wait_http(self._outer, self.name, f"{MIRROR_URL}/v2/", self.p2pd)

    def http(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """One request from this node's network; `url` may be a path at its own mirror."""

        def call() -> httpx.Response:
            with httpx.Client(base_url=MIRROR_URL, timeout=60, trust_env=False) as client:
                return client.request(method, url, headers=dict(headers or {}))

        return self._outer.inside(self.name, call)

    def inside(self, call: Callable[[], T]) -> T:
        """Run `call` in a thread whose sockets belong to this node."""
        return self._outer.inside(self.name, call)

    # the machine

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal p2pd and wait for its end."""
        if self.p2pd is not None:
            self.p2pd.kill(number)

    def unplug(self) -> None:
        """Pull its cable: nothing is refused, all is lost."""
        self._port("down")

    def plug(self) -> None:
        self._port("up")

    def in_its_mounts(self, script: str) -> None:
        """Run a shell script, as this node's p2pd sees the file system; raises TestbedError."""
        if self.p2pd is None:
            raise TestbedError(f"{self.name} runs no p2pd")
        command = ["nsenter", "--target", str(self.p2pd.pid), "--mount", "--pid", "--", "sh", "-ec", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise TestbedError(f"{self.name}: {done.stderr.strip() or script}")

    def lan_bytes(self) -> LinkBytes:
        return self._outer.inside(self.name, lambda: interface_bytes("eth0"))

    def _port(self, state: str) -> None:
        self._outer.run(["ip", "-n", "lan", "link", "set", f"p-{self.name}", state])
