"""The clients that an operator has, side by side on one node that runs p2pd.

Each client has an /etc and a home of its own: its processes see them by a mount namespace, so that
`p2pd runtime install` and the client find the files where they are on any machine. Two registries
stand behind the seeder: Docker Hub's place, open to all, and a private one whose login only the seeder has.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.testbed import Image, Process, SiteSpec, Testbed, synthetic_image
from benchmarks.testbed.daemons import POLL_S, READY_S, check_alive, wait_http
from benchmarks.testbed.images import push_image
from benchmarks.testbed.network import ORIGIN_IP
from benchmarks.testbed.node import ORIGIN, Node

__all__ = ["BUILT", "HUB", "PRIVATE", "Client", "ClientSite"]

HUB = "docker.io"
PRIVATE = "private.test"
BUILT = Path(__file__).parents[2] / "build" / "clients"
"""Where `make clients` puts what Debian does not have."""

_USER, _PASSWORD = "edge", "secret"
_HTPASSWD = f"{_USER}:$2b$05$AOyixZ2pak0RML2s16Oz2.WEH7c4YCKX6xxxhflrAloG5HeSlgnh2\n"
_ETC = ("containerd", "containers", "docker")
_MOUNTED = """
etc=$1; shift
for each in containerd containers docker; do mount --bind "$etc/$each" "/etc/$each"; done
exec "$@"
"""
_MIB = 1 << 20


class ClientSite:
    """A testbed of one node. Use as a context manager."""

    def __init__(self, cache: Path) -> None:
        self.bed = Testbed(SiteSpec(nodes=1))
        self._cache = cache
        self._seed = 0

    def __enter__(self) -> ClientSite:
        with ExitStack() as stack:
            stack.enter_context(self.bed)
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def node(self) -> Node:
        return self.bed.node(0)

    def image(self) -> Image:
        """One that nobody has seen yet."""
        self._seed += 1
        return synthetic_image(1000 + self._seed, 3 * _MIB, 2, self._cache)

    def push(self, name: str, registry: str = HUB) -> tuple[str, Image]:
        """A new image in a registry, behind the back of all: the reference to pull, and the image."""
        image = self.image()
        url, login = "http://127.0.0.1:5000", None
        if registry == PRIVATE:
            url, login = "http://127.0.0.1:5001", (_USER, _PASSWORD)
        self.bed.outer.inside("origin", lambda: push_image(image, url, name, "v1", login))
        return f"{registry}/{name}:v1", image

    def asked(self, name: str) -> set[str]:
        """Addresses that GET anything of a repository from either registry."""
        request = rf'^(\S+) - \S+ \[[^]]*\] "GET /v2/{re.escape(name)}/'
        logs = [process.log for process in (self.bed.origin, self.private) if process is not None]
        found = [re.findall(request, log.read_text(), re.MULTILINE) for log in logs if log is not None]
        return {address for each in found for address in each}

    def start_p2pd(self) -> None:
        registries = {
            f'upstreams."{ORIGIN}"': {"url": f"http://{ORIGIN}", "alias": "origin"},
            f'upstreams."{HUB}"': {"url": f"http://{ORIGIN}"},
            f'upstreams."{PRIVATE}"': {"url": f"http://{ORIGIN_IP}:5001"},
        }
        self.node.start_p2pd(registries)
        self.node.wait_p2pd()

    def _start(self) -> None:
        self.bed.start_origin()
        self.private = self._start_private()
        home = self.bed.outer.outside(self.bed.outer.site / "seeder")
        login = base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode()
        (home / "docker.json").write_text(json.dumps({"auths": {PRIVATE: {"auth": login}}}))
        self.bed.start_seeder(
            {
                "seeder": {"docker_config": str(self.bed.outer.site / "seeder" / "docker.json")},
                f'upstreams."{HUB}"': {"url": f"http://{ORIGIN}"},
                f'upstreams."{PRIVATE}"': {"url": f"http://{ORIGIN_IP}:5001"},
            }
        )
        self.start_p2pd()

    def _start_private(self) -> Process:
        home = self.bed.outer.site / "origin"
        files = self.bed.outer.outside(home)
        (files / "htpasswd").write_text(_HTPASSWD)
        (files / "private.yml").write_text(
            "version: 0.1\nlog: {level: warn}\nhttp: {addr: ':5001'}\n"
            f"storage: {{filesystem: {{rootdirectory: {home}/private}}}}\n"
            f"auth: {{htpasswd: {{realm: private, path: {home}/htpasswd}}}}\n"
        )
        process = self.bed.outer.popen(
            ["docker-registry", "serve", home / "private.yml"], "origin", log=home / "private.log"
        )
        wait_http(self.bed.outer, "origin", "http://127.0.0.1:5001/", process)
        return process


class Client:
    """The room of one client on the node: its /etc, its home, and what runs there."""

    def __init__(self, site: ClientSite, name: str, *, first_on_path: Path | None = None) -> None:
        self.site = site
        self.name = name
        self._outer = site.bed.outer
        self._first_on_path = first_on_path
        self.home = site.node.home / name
        self.files = self._outer.outside(self.home)
        for each in _ETC:
            (self.files / "etc" / each).mkdir(parents=True)
        here = Path("/etc/containers")
        shutil.copytree(here, self.files / "etc" / "containers", dirs_exist_ok=True)

    def install(self, runtime: str) -> None:
        """What an operator types; raises TestbedError where p2pd refuses."""
        p2pd = Path(sys.executable).with_name("p2pd")
        self.run(p2pd, "runtime", "install", runtime, "--config", self.site.node.home / "p2pd.toml")

    def run(self, *argv: str | Path, timeout: float = 60) -> str:
        """Output of a command; raises TestbedError when it fails."""
        return self._outer.run([*self._enter(), *argv], timeout=timeout).stdout

    def start(self, *argv: str | Path, socket: Path) -> Process:
        """Start a daemon and wait for its socket."""
        process = self._outer.popen([*self._enter(), *argv], log=self.home / "log")
        deadline = time.monotonic() + READY_S
        while not self._outer.outside(socket).exists():
            check_alive(process, deadline)
            time.sleep(POLL_S)
        return process

    def _enter(self) -> list[str | Path]:
        # Not `ip netns exec`: its fresh /sys has no cgroups, without which dockerd does not start.
        path = (
            os.environ["PATH"]
            if self._first_on_path is None
            else f"{self._first_on_path}:{os.environ['PATH']}"
        )
        enter: list[str | Path] = ["nsenter", f"--net=/run/netns/{self.site.node.name}", "unshare", "--mount"]
        enter += ["sh", "-ec", _MOUNTED, "sh", self.home / "etc"]
        return [*enter, "env", f"HOME={self.home}", f"PATH={path}"]
