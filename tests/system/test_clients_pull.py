"""Every client pulls through p2pd, configured by `p2pd runtime install` and by nothing else."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest

from benchmarks.testbed import Image
from benchmarks.testbed.node import ORIGIN
from tests.system.clients import BUILT, HUB, PRIVATE, Client, ClientSite
from tests.system.cri import pull_image

pytestmark = pytest.mark.system

SEEDER_AT_ORIGIN = "10.50.0.2"
CONFIGS = {
    1: """version = 2
[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "{home}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
""",
    2: """version = 3
[plugins."io.containerd.cri.v1.runtime".cni]
conf_dir = "{home}/cni"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "{snapshotter}"
[plugins."io.containerd.nri.v1.nri"]
disable = true
""",
}
"""By containerd's major version, in the form that is its own."""

DISABLED = [f"io.containerd.{each}" for each in ("snapshotter.v1.devmapper", "internal.v1.opt")]


@dataclass(frozen=True, slots=True)
class Puller:
    """A client that is ready: how it pulls, and what tells that it has the whole image."""

    pull: Callable[[str], object]
    has: Callable[[Image], bool]
    registries: tuple[str, ...] = (HUB, PRIVATE)


@cache
def containerd(site: ClientSite, major: int) -> tuple[Client, Path]:
    """Debian's, or one built by `make clients`: the client, and its socket."""
    client = Client(site, f"containerd{major}", first_on_path=BUILT if major > 1 else None)
    socket = client.home / "c.sock"
    head = f'root = "{client.home}/root"\nstate = "{client.home}/state"\ndisabled_plugins = {DISABLED}\n'
    tail = f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{socket}.ttrpc"\n'
    text = CONFIGS[major].format(home=client.home, snapshotter=site.bed.snapshotter)
    (client.files / "etc/containerd/config.toml").write_text(head + text + tail)
    client.install("containerd")
    client.start("containerd", socket=socket)
    return client, socket


def ctr(site: ClientSite, major: int) -> Puller:
    client, socket = containerd(site, major)

    def pull(reference: str) -> None:
        client.run(
            *("ctr", "--debug", "--address", socket, "images", "pull"),
            *("--hosts-dir", "/etc/containerd/certs.d", "--snapshotter", site.bed.snapshotter, reference),
        )

    return Puller(pull, partial(holds, client))


def kubelet(site: ClientSite, major: int) -> Puller:
    client, socket = containerd(site, major)
    return Puller(partial(pull_image, client, socket), partial(holds, client))


def holds(client: Client, image: Image) -> bool:
    store = client.files / "root/io.containerd.content.v1.content/blobs/sha256"
    return all(is_right(store / blob.digest.hex) for blob in image.content)


def is_right(path: Path | None) -> bool:
    """Whether a file named by a digest has it."""
    if path is None or not path.exists():
        return False
    with path.open("rb") as body:
        return hashlib.file_digest(body, "sha256").hexdigest() == path.name


@cache
def podman(site: ClientSite) -> Puller:
    client = Client(site, "podman")
    client.install("podman")
    command = ["podman", "--root", f"{client.home}/root", "--runroot", f"{client.home}/run"]
    command += ["--storage-driver", "vfs", "--tmpdir", f"{client.home}/tmp", "--cgroup-manager", "cgroupfs"]

    def has(image: Image) -> bool:
        # An image's ID is its config's digest, and that names the layers by theirs.
        return str(image.blobs[0].digest) in client.run(*command, "images", "--no-trunc", "--quiet")

    return Puller(lambda reference: client.run(*command, "pull", "--quiet", reference), has)


@cache
def skopeo(site: ClientSite, name: str) -> Puller:
    client = Client(site, name)
    client.install("podman")

    def pull(reference: str) -> None:
        copied = client.home / "copied" / reference.replace("/", "-")
        (client.files / "copied").mkdir(exist_ok=True)
        if name == "skopeo-copy":
            client.run("skopeo", "copy", f"docker://{reference}", f"dir:{copied}")
        else:
            client.run("skopeo", "sync", "--src", "docker", "--dest", "dir", reference, copied)

    def has(image: Image) -> bool:
        found = {path.name: path for path in (client.files / "copied").rglob("*") if path.is_file()}
        return all(is_right(found.get(blob.digest.hex)) for blob in image.blobs)

    return Puller(pull, has)


@cache
def docker(site: ClientSite) -> Puller:
    client = Client(site, "docker")
    client.install("docker")
    socket = client.home / "d.sock"
    client.start(
        *("dockerd", "--data-root", client.home / "root", "--exec-root", client.home / "exec"),
        *("--pidfile", client.home / "pid", "--host", f"unix://{socket}", "--iptables=false"),
        *("--ip6tables=false", "--bridge=none", "--storage-driver", "vfs"),
        socket=socket,
    )
    command = ["docker", "--host", f"unix://{socket}"]

    def has(image: Image) -> bool:
        return str(image.blobs[0].digest) in client.run(*command, "images", "--no-trunc", "--quiet")

    return Puller(lambda reference: client.run(*command, "pull", "--quiet", reference), has, (HUB,))


def needs(package: str, *programs: str) -> str | None:
    lacking = [program for program in programs if shutil.which(program) is None]
    return f"{', '.join(lacking)} not installed: apt-get install {package}" if lacking else None


def needs_built(*programs: str) -> str | None:
    lacking = [program for program in programs if not (BUILT / program).exists()]
    return f"{', '.join(lacking)} not built: run make clients" if lacking else None


CLIENTS: dict[str, tuple[str | None, Callable[[ClientSite], Puller]]] = {
    "containerd1-ctr": (needs("containerd", "containerd", "ctr"), lambda site: ctr(site, 1)),
    "containerd1-cri": (needs("containerd", "containerd", "ctr"), lambda site: kubelet(site, 1)),
    "containerd2-ctr": (needs_built("containerd", "ctr"), lambda site: ctr(site, 2)),
    "containerd2-cri": (needs_built("containerd"), lambda site: kubelet(site, 2)),
    "podman": (needs("podman", "podman"), podman),
    "skopeo-copy": (needs("skopeo", "skopeo"), lambda site: skopeo(site, "skopeo-copy")),
    "skopeo-sync": (needs("skopeo", "skopeo"), lambda site: skopeo(site, "skopeo-sync")),
    "docker": (needs("docker.io", "dockerd", "docker"), docker),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_client_pulls_from_both_registries_through_p2pd(client_site: ClientSite, name: str) -> None:
    lacking, make = CLIENTS[name]
    if lacking is not None:
        pytest.skip(lacking)
    puller = make(client_site)
    repositories = {HUB: f"library/{name}", PRIVATE: f"team/{name}"}
    pushed = [client_site.push(repositories[registry], registry) for registry in puller.registries]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(puller.pull, [reference for reference, _ in pushed]))
    for _, image in pushed:
        assert puller.has(image)
    for registry in puller.registries:
        assert client_site.asked(repositories[registry]) == {SEEDER_AT_ORIGIN}


@pytest.mark.parametrize("name", ["containerd1-cri", "containerd2-cri", "podman", "skopeo-copy"])
def test_client_goes_to_the_registry_where_p2pd_is_down(client_site: ClientSite, name: str) -> None:
    lacking, make = CLIENTS[name]
    if lacking is not None:
        pytest.skip(lacking)
    puller, repository = make(client_site), f"library/alone-{name}"
    _, image = client_site.push(repository)
    client_site.node.kill()
    try:
        puller.pull(f"{ORIGIN}/{repository}:v1")
    finally:
        client_site.start_p2pd()
    assert puller.has(image)
    assert client_site.asked(repository) == {client_site.node.ip}
