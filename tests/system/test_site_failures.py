"""A site where something is gone: seeder, WAN, daemon, or all at once. Pulls end, and end right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.testbed import Image, SiteSpec, Testbed, missing_prerequisite, synthetic_image
from benchmarks.testbed.live_site import LiveSite, assert_right, log_events, metric
from benchmarks.testbed.node import ORIGIN

pytestmark = pytest.mark.system

MIB = 1 << 20
NODES = 4
WAN = 80_000_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSite]:
    if (why := missing_prerequisite()) is not None:
        pytest.skip(f"no testbed: {why}")
    with Testbed(SiteSpec(nodes=NODES, wan_bit_s=WAN)) as bed:
        site = LiveSite(bed)
        bed.start_origin()
        image = synthetic_image(1, 8 * MIB, 1, tmp_path_factory.mktemp("floor"))
        bed.push(image, tag="floor")
        site.measure_floor(image)
        yield site


@pytest.fixture
def site(built: LiveSite) -> LiveSite:
    """All in order: a seeder, a WAN, no daemon left of an earlier test."""
    built.bed.restore_wan()
    if built.bed.seeder is None or not built.bed.seeder.is_running:
        built.bed.start_seeder()
    for node in built.nodes:
        node.reset()
    return built


def push_warm(site: LiveSite, image: Image, tag: str) -> str:
    ref = site.bed.push(image, tag=tag)
    site.bed.warm_seeder(ref, image)
    return ref


def kill_seeder(site: LiveSite) -> None:
    assert site.bed.seeder is not None
    site.bed.seeder.kill()


def test_new_nodes_pull_from_peers_when_the_seeder_and_then_the_wan_are_gone(
    site: LiveSite, tmp_path: Path
) -> None:
    image = synthetic_image(11, 36 * MIB, 2, tmp_path)
    ref = push_warm(site, image, "kept")
    early, late = site.nodes[:2], site.nodes[2:]
    site.start(early)
    assert_right(site.update(ref, image, early), image, early)

    kill_seeder(site)
    site.start(late[:1])
    update = site.update(ref, image, late[:1])
    assert_right(update, image, late[:1])
    # The tag is asked of the origin; no blob is.
    assert update.wan_bytes < 10_000
    assert metric(late[0], "p2pd_wan_bytes_total") == 0
    assert log_events(late[0].p2pd, "tag.stale") == []

    site.bed.cut_wan()
    site.start(late[1:])
    update = site.update(ref, image, late[1:])
    assert_right(update, image, late[1:])
    assert update.wan_bytes < 10_000
    assert metric(late[1], "p2pd_wan_bytes_total") == 0
    answer = late[1].http("HEAD", f"/v2/app/manifests/kept?ns={ORIGIN}")
    assert answer.headers["P2pd-Stale"] == "true"
    assert answer.headers["Docker-Content-Digest"] == str(image.manifest.digest)
    assert metric(late[1], "p2pd_stale_tags_total") >= 2
    assert log_events(late[1].p2pd, "tag.stale")[0]["tag"] == f"{ORIGIN}/app:kept"


def test_site_without_a_seeder_pulls_each_byte_about_once(site: LiveSite, tmp_path: Path) -> None:
    image = synthetic_image(12, 40 * MIB, 2, tmp_path)
    ref = site.bed.push(image, tag="seederless")
    site.start(changes={"wan": {"seeders": []}})
    update = site.update(ref, image)
    assert_right(update, image, site.nodes)
    # By what the nodes took: packets of a busy machine are sent twice, which nobody decided.
    taken = sum(metric(node, "p2pd_wan_bytes_total") for node in site.nodes)
    assert image.blob_bytes <= taken <= 1.01 * image.blob_bytes
    for blob in image.blobs:
        assert len(set(site.origin_gets(blob.digest))) == 1


def test_containerd_goes_upstream_when_nothing_works(site: LiveSite, tmp_path: Path) -> None:
    image = synthetic_image(13, 8 * MIB, 2, tmp_path)
    ref = site.bed.push(image, tag="nothing")
    kill_seeder(site)
    node = site.nodes[0]
    site.start([node], {"wan": {"direct": False}})
    update = site.update(ref, image, [node])
    assert_right(update, image, [node])
    assert update.seconds < image.blob_bytes * 8 / WAN + 12
    assert metric(node, "p2pd_served_bytes_total") == 0


def test_node_that_loses_power_in_mid_blob_resumes(site: LiveSite, tmp_path: Path) -> None:
    image = synthetic_image(16, 48 * MIB, 1, tmp_path)
    ref = push_warm(site, image, "resumed")
    victim, others = site.nodes[0], site.nodes[1:]
    site.start()

    def power_cut() -> None:
        site.wait_held(victim, image.blob_bytes // 2)
        assert victim.containerd is not None
        victim.containerd.kill()
        (victim.files / "containerd.sock").unlink()
        victim.kill()

    cut = site.update(ref, image, during=power_cut)
    assert [outcome.code != 0 for outcome in cut.outcomes] == [True, False, False, False]
    for node in others:
        assert node.wrong_content(image) == []
    victim.start_containerd()
    victim.start_p2pd()
    victim.wait_containerd()
    victim.wait_p2pd()
    site.wait_acquainted()
    again = site.update(ref, image, [victim])
    assert_right(again, image, [victim])
    assert log_events(victim.p2pd, "transfer.begins")[-1]["had"] >= image.blob_bytes // 4
    assert cut.wan_ratio + again.wan_ratio <= 1.1
