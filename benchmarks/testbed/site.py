"""The testbed: a site, its WAN, and the centre behind it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from benchmarks.testbed.daemons import Config, start_daemon, wait_http
from benchmarks.testbed.images import Image, push_image, push_index
from benchmarks.testbed.namespaces import Outer, TestbedError, missing_prerequisite
from benchmarks.testbed.network import (
    CACHE_IP,
    LinkBytes,
    SiteSpec,
    build_script,
    interface_bytes,
    restore_script,
    shaper,
)
from benchmarks.testbed.node import ORIGIN, SEEDER_URL, Node
from benchmarks.testbed.process import Process
from p2pd.model.content import Descriptor

__all__ = ["CACHE_URL", "Testbed"]

CACHE_URL = f"http://{CACHE_IP}:5000"

_MEMORY_MARGIN = 1.5
"""Free memory, as a multiple of what the disks may hold, from which they go to tmpfs."""

_CURL_S = 3600


class Testbed:
    """A context manager; leaving it ends and removes everything. Raises TestbedError.

    Services are started by name; each may be started, killed and started again.
    """

    __test__ = False  # not a test case, whatever its name says

    def __init__(self, spec: SiteSpec) -> None:
        self.spec = spec
        self.origin: Process | None = None
        self.cache: Process | None = None
        self.seeder: Process | None = None
        self._nodes: list[Node] = []

    def __enter__(self) -> Testbed:
        if (why := missing_prerequisite()) is not None:
            raise TestbedError(why)
        fits = _free_memory() >= _MEMORY_MARGIN * self.spec.disk_bytes
        self.outer = Outer(in_memory=fits and not self.spec.on_disk)
        try:
            self.outer.run(["sh", "-s"], text=build_script(self.spec))
            for host in ("origin", "cache", "seeder"):
                self._files(host).mkdir()
            self.snapshotter = self._find_snapshotter()
            self._nodes = [Node(self.outer, index, self.snapshotter) for index in range(self.spec.nodes)]
        except BaseException:
            self.outer.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.outer.close()

    @property
    def nodes(self) -> Sequence[Node]:
        return self._nodes

    def node(self, index: int) -> Node:
        return self._nodes[index]

    # the centre

    def start_origin(self) -> None:
        """Start the origin registry; what was pushed to it is still there."""
        self.origin = self._start_registry("origin", {})

    def push(self, image: Image, name: str = "app", tag: str = "v1") -> str:
        """Push to the origin, past all shaping; the reference to pull."""
        self.outer.inside("origin", lambda: push_image(image, "http://127.0.0.1:5000", name, tag))
        return f"{ORIGIN}/{name}:{tag}"

    def push_index(
        self, images: dict[str, Image], name: str = "app", tag: str = "v1"
    ) -> tuple[str, Descriptor]:
        """Push an index of images by platform ("linux/amd64"); the reference to pull, and the index."""
        index = self.outer.inside("origin", lambda: push_index(images, "http://127.0.0.1:5000", name, tag))
        return f"{ORIGIN}/{name}:{tag}", index

    def start_seeder(self, changes: Config | None = None) -> None:
        """Start the checkout's seeder and wait until it answers."""
        config: dict[str, dict[str, object]] = {
            "seeder": {"listen": "0.0.0.0:7790", "state_dir": str(self.outer.site / "seeder" / "state")},
            f'upstreams."{ORIGIN}"': {"url": f"http://{ORIGIN}"},
            "admin": {"socket": str(self.outer.site / "seeder" / "p2pd-seeder.sock")},
            "log": {"level": "info", "format": "json"},
        }
        self.seeder = start_daemon(self.outer, "seeder", "p2pd-seeder", config, changes)
        wait_http(self.outer, "seeder", "http://127.0.0.1:7790/v2/", self.seeder)

    def reset_seeder(self) -> None:
        """Kill the seeder and forget all it held."""
        self._reset("seeder", self.seeder)
        self.seeder = None

    def warm_seeder(self, ref: str, image: Image) -> None:
        """Have the seeder pull all of `image`; raises TestbedError when it does not."""
        name, _, tag = ref.removeprefix(f"{ORIGIN}/").rpartition(":")
        paths = [f"manifests/{tag}", f"manifests/{image.manifest.digest}"]
        paths += [f"blobs/{blob.digest}" for blob in image.blobs]
        urls = [f"http://127.0.0.1:7790/v2/{name}/{path}?ns={ORIGIN}" for path in paths]
        self._curl("seeder", urls)

    # the site

    def start_cache(self) -> None:
        """Start the pull-through registry of the site: Debian's docker-registry as a proxy of the origin."""
        self.cache = self._start_registry("cache", {"proxy": {"remoteurl": f"http://{ORIGIN}"}})

    def reset_cache(self) -> None:
        """Kill the pull-through registry and forget all it held."""
        self._reset("cache", self.cache)
        self.cache = None

    def start_containerds(self) -> None:
        """Start every node's containerd and wait for all."""
        for node in self._nodes:
            node.start_containerd()
        for node in self._nodes:
            node.wait_containerd()

    def start_p2pds(self, changes: Config | None = None) -> None:
        """Start every node's p2pd and wait until all their mirrors answer."""
        for node in self._nodes:
            node.start_p2pd(changes)
        for node in self._nodes:
            node.wait_p2pd()

    def daemon_logs(self) -> dict[str, Path]:
        """Logs of p2pds, containerds, clients and seeder that there are, by a name for each."""
        homes = [self._files("seeder"), *(node.files for node in self._nodes)]
        return {f"{home.name}-{log.name}": log for home in homes for log in sorted(home.glob("*.log"))}

    def keep_logs(self, directory: Path) -> None:
        """Copy them there."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, log in self.daemon_logs().items():
            shutil.copyfile(log, directory / name)

    # the WAN

    def wan_bytes(self) -> LinkBytes:
        """What the site's WAN interface has received (down) and sent (up) so far."""
        return self.outer.inside("router", lambda: interface_bytes("wan"))

    def origin_link_bytes(self) -> LinkBytes:
        """What the seeder has received from the origin (down) and sent to it (up) so far."""
        return self.outer.inside("seeder", lambda: interface_bytes("direct"))

    def cut_wan(self) -> None:
        """Cut the WAN beyond the site's router: packets vanish."""
        self.outer.run(["ip", "-n", "centre", "link", "set", "wan", "down"])

    def restore_wan(self) -> None:
        self.outer.run(["sh", "-s"], text=restore_script())

    def set_wan_rate(self, bit_s: int) -> None:
        """Shape the WAN anew, both ways."""
        for name in ("router", "centre"):
            self.outer.run(["tc", "-n", name, "-batch", "-"], text=shaper("wan", bit_s, "change") + "\n")

    def plain_download(
        self, image: Image, name: str = "app", *, through_seeder: bool = False
    ) -> tuple[float, LinkBytes]:
        """One curl on node 0 of config and layers over the WAN, in one connection: seconds, WAN bytes.

        From the origin, or from the seeder (which then pulls what it does not hold).
        """
        host, query = (SEEDER_URL, f"?ns={ORIGIN}") if through_seeder else (f"http://{ORIGIN}", "")
        before, begun = self.wan_bytes(), time.monotonic()
        self._curl("n0", [f"{host}/v2/{name}/blobs/{blob.digest}{query}" for blob in image.blobs])
        return time.monotonic() - begun, self.wan_bytes() - before

    def _files(self, host: str) -> Path:
        return self.outer.outside(self.outer.site / host)

    def _reset(self, host: str, process: Process | None) -> None:
        if process is not None:
            process.kill()
        shutil.rmtree(self._files(host))
        self._files(host).mkdir()

    def _start_registry(self, host: str, extra: dict[str, dict[str, str]]) -> Process:
        home = self.outer.site / host
        # YAML is a superset of JSON, whose one-line form needs no library.
        sections: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(home / "registry")},
                "cache": {"blobdescriptor": "inmemory"},
            },
            "http": {"addr": ":5000"},
            **extra,
        }
        text = "".join(f"{key}: {_inline(value)}\n" for key, value in sections.items())
        (self._files(host) / "registry.yml").write_text(text)
        process = self.outer.popen(
            ["docker-registry", "serve", home / "registry.yml"], host, log=home / "registry.log"
        )
        wait_http(self.outer, host, "http://127.0.0.1:5000/v2/", process)
        return process

    def _curl(self, host: str, urls: Sequence[str]) -> None:
        config = "".join(f'url = "{url}"\noutput = "/dev/null"\n' for url in urls)
        command = ["curl", "--config", "-", "--silent", "--show-error", "--fail", "--noproxy", "*"]
        self.outer.run(command, host, text=config, timeout=_CURL_S)

    def _find_snapshotter(self) -> str:
        """Overlayfs where the site's directory may be its upper layer, else native (which copies)."""
        attempt = 'cd "$1" && mkdir l u w m && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w overlay m'
        home = self.outer.site / "probe"
        self.outer.outside(home).mkdir()
        done = self.outer.run(["unshare", "--mount", "sh", "-c", attempt, "sh", home], check=False)
        shutil.rmtree(self.outer.outside(home))
        return "overlayfs" if done.returncode == 0 else "native"


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_inline(item)}" for key, item in value.items()) + "}"
    return f'"{value}"'


def _free_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
