"""The testbed itself: honest rates and counters, real containerds, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from benchmarks.testbed import Image, SiteSpec, Testbed, TestbedError, synthetic_image
from benchmarks.testbed.namespaces import PREFIX
from benchmarks.testbed.network import ORIGIN_IP
from benchmarks.testbed.site import CACHE_URL
from tests.system.conftest import BuildSite

pytestmark = pytest.mark.system

WAN = 40_000_000
MIB = 1 << 20
REPOSITORY = Path(__file__).parents[2]

# Builds a site with running daemons, says where, and waits to be killed.
VICTIM = """
import time
from benchmarks.testbed import SiteSpec, Testbed
with Testbed(SiteSpec(nodes=1)) as bed:
    bed.start_origin()
    bed.start_containerds()
    print(bed.outer.pid, bed.outer._guard.pid, bed.outer.work, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return synthetic_image(seed=7, size=8 * MIB, layers=2, cache=tmp_path)


def wait_until(condition: Callable[[], bool], within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def namespaces_of(pid: int) -> set[str]:
    """Outer namespaces of a testbed, and those of its hosts."""
    found = {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "pid", "mnt")}
    return found | {f"net:[{path.stat().st_ino}]" for path in Path(f"/proc/{pid}/root/run/netns").iterdir()}


def dwellers(namespaces: set[str]) -> list[int]:
    """Processes of the whole machine that live in any of `namespaces`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        for kind in ("net", "pid", "mnt"):
            try:
                if os.readlink(process / "ns" / kind) in namespaces:
                    found.append(int(process.name))
            except OSError:
                continue  # ended meanwhile
    return found


def host_state() -> tuple[str, str, set[Path]]:
    """What a testbed must not change on the host: links, mounts, directories."""
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    return links, Path("/proc/self/mounts").read_text(), set(Path("/run").glob("netns*/*"))


def get(url: str, timeout: float = 1.0) -> int:
    with httpx.Client(timeout=timeout, trust_env=False) as client:
        return client.get(url).status_code


def answers(bed: Testbed, node: int, url: str) -> bool:
    try:
        return bed.node(node).inside(lambda: get(url)) == 200
    except httpx.TransportError:
        return False


def test_direct_pull_by_two_nodes_counts_every_byte_twice(build_site: BuildSite, image: Image) -> None:
    bed = build_site(SiteSpec(nodes=2, wan_bit_s=WAN))
    bed.start_origin()
    ref = bed.push(image)
    seconds, plain = bed.plain_download(image)
    assert plain.down * 8 / seconds == pytest.approx(WAN, rel=0.10)
    assert image.blob_bytes < plain.down < image.blob_bytes * 1.08

    bed.start_containerds()
    for node in bed.nodes:
        node.use_mirror(None)
    before, begun = bed.wan_bytes(), time.monotonic()
    pending = [node.prepare_fetch(ref) for node in bed.nodes]
    for one in pending:
        one.go()
    assert [one.wait(60).code for one in pending] == [0, 0]
    spent = time.monotonic() - begun
    counted = bed.wan_bytes() - before
    assert counted.down / plain.down == pytest.approx(2.0, rel=0.05)
    assert counted.down * 8 / spent < WAN * 1.10
    for node in bed.nodes:
        assert node.wrong_content(image) == []
        assert node.held_bytes() >= image.blob_bytes


def test_verification_sees_one_changed_byte_and_an_absent_blob(build_site: BuildSite, image: Image) -> None:
    bed = build_site(SiteSpec(nodes=1))
    bed.start_origin()
    ref = bed.push(image)
    node = bed.node(0)
    bed.start_containerds()
    node.use_mirror(None)
    assert node.wrong_content(image) == list(image.content)
    assert node.fetch(ref).code == 0
    assert node.wrong_content(image) == []
    store = node.files / "containerd" / "io.containerd.content.v1.content" / "blobs" / "sha256"
    changed = store / image.blobs[1].digest.hex
    body = bytearray(changed.read_bytes())
    body[1000] ^= 1
    changed.write_bytes(body)
    (store / image.blobs[2].digest.hex).unlink()
    assert node.wrong_content(image) == [image.blobs[1], image.blobs[2]]
    node.reset()
    assert node.wrong_content(image) == list(image.content)


def test_pull_unpacks(build_site: BuildSite, image: Image) -> None:
    bed = build_site(SiteSpec(nodes=1))
    bed.start_origin()
    ref = bed.push(image)
    bed.start_containerds()
    bed.node(0).use_mirror(None)
    assert bed.node(0).fetch(ref, "pull").code == 0
    assert bed.node(0).ctr("images", "check").splitlines()[1].endswith("true")


def test_pull_through_cache_serves_later_nodes_from_the_lan(build_site: BuildSite, image: Image) -> None:
    bed = build_site(SiteSpec(nodes=2))
    bed.start_origin()
    ref = bed.push(image)
    bed.start_cache()
    bed.start_containerds()
    for node in bed.nodes:
        node.use_mirror(CACHE_URL)
    assert bed.node(0).fetch(ref).code == 0
    stored = bed.outer.outside(bed.outer.site) / "cache" / "registry" / "docker/registry/v2/blobs/sha256"
    assert wait_until(lambda: all(list(stored.glob(f"*/{blob.digest.hex}/data")) for blob in image.blobs))
    before = bed.wan_bytes()
    assert bed.node(1).fetch(ref).code == 0
    assert bed.node(1).wrong_content(image) == []
    assert (bed.wan_bytes() - before).down < 100_000


def test_index_gives_a_node_its_own_platform(build_site: BuildSite, tmp_path: Path) -> None:
    bed = build_site(SiteSpec(nodes=1))
    mine, other = (synthetic_image(seed, MIB, 1, cache=tmp_path) for seed in (1, 2))
    bed.start_origin()
    ref, _ = bed.push_index({"linux/amd64": mine, "linux/s390x": other})
    bed.start_containerds()
    bed.node(0).use_mirror(None)
    assert bed.node(0).fetch(ref).code == 0
    assert bed.node(0).wrong_content(mine) == []
    assert other.blobs[1] in bed.node(0).wrong_content(other)


def test_seeder_reaches_the_origin_over_its_own_shaped_link(build_site: BuildSite, image: Image) -> None:
    bed = build_site(SiteSpec(nodes=1, origin_bit_s=WAN))
    bed.start_origin()
    bed.push(image)
    blob = f"http://{ORIGIN_IP}:5000/v2/app/blobs/{image.blobs[1].digest}"
    wan, link, begun = bed.wan_bytes(), bed.origin_link_bytes(), time.monotonic()
    bed.outer.run(["curl", "--silent", "--fail", "--output", "/dev/null", blob], "seeder")
    seconds = time.monotonic() - begun
    counted = bed.origin_link_bytes() - link
    assert counted.down >= image.blobs[1].size
    assert counted.down * 8 / seconds == pytest.approx(WAN, rel=0.15)
    assert (bed.wan_bytes() - wan).down < 10_000


def test_multicast_reaches_the_other_nodes(build_site: BuildSite) -> None:
    bed = build_site(SiteSpec(nodes=2))
    group, port = "224.0.0.251", 5353

    def listen() -> socket.socket:
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.settimeout(5)
        receiver.bind(("", port))
        membership = socket.inet_aton(group) + socket.inet_aton(bed.node(1).ip)
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        return receiver

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"hello", (group, port))

    with bed.node(1).inside(listen) as receiver:
        bed.node(0).inside(send)
        data, (host, _) = receiver.recvfrom(100)
    assert (data, host) == (b"hello", bed.node(0).ip)


def test_wan_and_cable_can_be_cut_and_mended(build_site: BuildSite) -> None:
    bed = build_site(SiteSpec(nodes=2))
    bed.start_origin()
    bed.start_cache()
    origin, cache = f"http://{ORIGIN_IP}:5000/v2/", f"{CACHE_URL}/v2/"
    assert answers(bed, 0, origin)
    bed.cut_wan()
    assert not answers(bed, 0, origin)
    assert answers(bed, 0, cache)
    bed.restore_wan()
    assert wait_until(lambda: answers(bed, 0, origin))
    bed.node(0).unplug()
    assert not answers(bed, 0, cache)
    assert answers(bed, 1, cache)
    bed.node(0).plug()
    assert wait_until(lambda: answers(bed, 0, cache))


def test_wan_rate_can_change(build_site: BuildSite, image: Image) -> None:
    bed = build_site(SiteSpec(nodes=1, wan_bit_s=10 * WAN))
    bed.start_origin()
    bed.push(image)
    bed.set_wan_rate(WAN)
    seconds, counted = bed.plain_download(image)
    assert counted.down * 8 / seconds == pytest.approx(WAN, rel=0.10)


def test_service_that_cannot_start_is_told_in_one_line(build_site: BuildSite) -> None:
    bed = build_site(SiteSpec(nodes=1))
    bed.start_origin()
    with pytest.raises(TestbedError, match=r"^[^\n]*docker-registry on cache ended with code 1: [^\n]+$"):
        bed._start_registry("cache", {"http": {"addr": "no address"}})


def test_nothing_is_left_behind(build_site: BuildSite, image: Image) -> None:
    build_site(SiteSpec(nodes=1))  # another run, which must not be disturbed
    before = host_state()
    with Testbed(SiteSpec(nodes=2)) as bed:
        work, namespaces = bed.outer.work, namespaces_of(bed.outer.pid)
        bed.start_origin()
        bed.push(image)
        bed.start_containerds()
        assert len(dwellers(namespaces)) > 3
        assert host_state() == before
    assert dwellers(namespaces) == []
    assert not work.exists()
    assert host_state() == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_a_killed_run(build_site: BuildSite, number: int) -> None:
    before = host_state()
    victim, pid, _, work = start_victim()
    with victim:
        namespaces = namespaces_of(pid)
        assert len(dwellers(namespaces)) > 2
        victim.send_signal(number)
        assert victim.wait(10) != 0
    assert wait_until(lambda: not dwellers(namespaces))
    assert wait_until(lambda: not work.exists())
    assert host_state() == before


def test_next_start_removes_what_a_killed_guard_left(build_site: BuildSite) -> None:
    victim, pid, guard, work = start_victim()
    with victim:
        namespaces = namespaces_of(pid)
        os.kill(guard, signal.SIGKILL)
        victim.kill()
    assert wait_until(lambda: not dwellers(namespaces))
    assert work.name.startswith(PREFIX)
    assert work.exists()
    build_site(SiteSpec(nodes=1))
    assert not work.exists()


def start_victim() -> tuple[subprocess.Popen[str], int, int, Path]:
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert victim.stdout is not None
    pid, guard, work = victim.stdout.readline().split()
    return victim, int(pid), int(guard), Path(work)
