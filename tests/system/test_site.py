"""A site that works: real containerds pull through p2pd, and each byte crosses the WAN once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import httpx
import pytest

from benchmarks.testbed import SiteSpec, Testbed, missing_prerequisite, synthetic_image
from benchmarks.testbed.live_site import LiveSite, assert_right, metric
from benchmarks.testbed.node import ORIGIN, SEEDER_URL

pytestmark = pytest.mark.system

MIB = 1 << 20
NODES = 4
WAN = 80_000_000
SEEDER_AT_ORIGIN = "10.50.0.2"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSite]:
    """Four nodes that know each other, and an empty seeder."""
    if (why := missing_prerequisite()) is not None:
        pytest.skip(f"no testbed: {why}")
    with Testbed(SiteSpec(nodes=NODES, wan_bit_s=WAN, origin_bit_s=WAN)) as bed:
        site = LiveSite(bed)
        bed.start_origin()
        image = synthetic_image(1, 8 * MIB, 1, tmp_path_factory.mktemp("floor"))
        bed.push(image, tag="floor")
        site.measure_floor(image)
        bed.start_seeder()
        site.start()
        yield site


@pytest.mark.parametrize("seeder", ["cold", "warm"])
def test_four_nodes_together_pull_each_byte_once(site: LiveSite, seeder: str, tmp_path: Path) -> None:
    image = synthetic_image({"cold": 2, "warm": 3}[seeder], 40 * MIB, 2, tmp_path)
    ref = site.bed.push(image, tag=seeder)
    if seeder == "warm":
        site.bed.warm_seeder(ref, image)
    update = site.update(ref, image)
    assert_right(update, image, site.nodes)
    # At most two of its 40 pieces twice: nodes that begin late on a busy machine meet late.
    assert update.wan_ratio <= 1.06
    for blob in image.blobs:
        assert site.origin_gets(blob.digest) == [SEEDER_AT_ORIGIN]


def test_images_pull_unpacks_what_came_through_p2pd(site: LiveSite, tmp_path: Path) -> None:
    image = synthetic_image(4, 6 * MIB, 3, tmp_path)
    ref = site.bed.push(image, tag="unpacked")
    update = site.update(ref, image, site.nodes[:2], client="pull")
    assert_right(update, image, site.nodes[:2])
    for node in site.nodes[:2]:
        assert node.ctr("images", "check", f"name=={ref}").splitlines()[1].endswith("true")


def test_node_that_comes_later_takes_nothing_over_the_wan(site: LiveSite, tmp_path: Path) -> None:
    image = synthetic_image(5, 20 * MIB, 1, tmp_path)
    ref = site.bed.push(image, tag="later")
    early, late = site.nodes[:3], site.nodes[3:]
    assert_right(site.update(ref, image, early), image, early)
    before = metric(late[0], "p2pd_wan_bytes_total")
    update = site.update(ref, image, late)
    assert_right(update, image, late)
    assert metric(late[0], "p2pd_wan_bytes_total") == before
    assert update.wan_bytes < 10_000


def test_only_the_platform_asked_for_crosses_the_wan(site: LiveSite, tmp_path: Path) -> None:
    mine, other = (synthetic_image(seed, 8 * MIB, 1, tmp_path) for seed in (6, 7))
    ref, _ = site.bed.push_index({"linux/amd64": mine, "linux/s390x": other}, tag="index")
    link = site.bed.origin_link_bytes()
    update = site.update(ref, mine)
    assert_right(update, mine, site.nodes)
    assert update.wan_ratio <= 1.05
    assert (site.bed.origin_link_bytes() - link).down < 1.2 * mine.blob_bytes
    for blob in other.blobs:
        assert site.origin_gets(blob.digest) == []


def test_sixteen_clients_of_one_cold_blob_make_one_request_at_the_origin(
    site: LiveSite, tmp_path: Path
) -> None:
    image = synthetic_image(8, 3 * MIB, 1, tmp_path)
    site.bed.push(image, tag="sixteen")
    layer = image.blobs[1]
    barrier = Barrier(16)

    def ask(number: int) -> str:
        def call() -> str:
            with httpx.Client(base_url=SEEDER_URL, timeout=60, trust_env=False) as client:
                barrier.wait(10)
                answer = client.get(f"/v2/app/blobs/{layer.digest}", params={"ns": ORIGIN})
                return hashlib.sha256(answer.raise_for_status().content).hexdigest()

        return site.nodes[number % NODES].inside(call)

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(16))) == {layer.digest.hex}
    assert site.origin_gets(layer.digest) == [SEEDER_AT_ORIGIN]
