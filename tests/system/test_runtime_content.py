"""What a node's containerd got without p2pd is given to the other nodes, from containerd's own files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.testbed import SiteSpec, Testbed, missing_prerequisite, synthetic_image
from benchmarks.testbed.live_site import LiveSite, assert_right, metric
from benchmarks.testbed.node import MIRROR_URL

pytestmark = pytest.mark.system

MIB = 1 << 20


@pytest.fixture
def site() -> Iterator[LiveSite]:
    if (why := missing_prerequisite()) is not None:
        pytest.skip(f"no testbed: {why}")
    with Testbed(SiteSpec(nodes=2, wan_bit_s=80_000_000, origin_bit_s=80_000_000)) as bed:
        bed.start_origin()
        yield LiveSite(bed)


def test_an_image_that_came_without_p2pd_reaches_the_next_node_over_the_lan(
    site: LiveSite, tmp_path: Path
) -> None:
    image = synthetic_image(21, 12 * MIB, 2, tmp_path)
    ref = site.bed.push(image, tag="before")
    first, second = site.nodes
    for node in (first, second):
        node.reset()
        node.start_containerd()
        node.wait_containerd()
    first.use_mirror(None)
    assert first.fetch(ref).code == 0
    asked = {blob.digest: site.origin_gets(blob.digest) for blob in image.blobs}
    assert all(len(addresses) == 1 for addresses in asked.values())

    first.start_p2pd({"runtime": {"containerd_root": str(first.home / "containerd")}})
    second.use_mirror(MIRROR_URL)
    second.start_p2pd()
    for node in (first, second):
        node.wait_p2pd()
    site.wait_acquainted()
    update = site.update(ref, image, [second])
    assert_right(update, image, [second])
    assert {blob.digest: site.origin_gets(blob.digest) for blob in image.blobs} == asked
    assert update.wan_bytes < 10_000
    assert metric(second, "p2pd_lan_bytes_total") >= image.blob_bytes
    kept = [path for path in (first.files / "p2pd" / "store" / "blobs").rglob("*") if path.is_file()]
    assert kept == [], "the first node keeps no second copy"

    # What BindReadOnlyPaths of docs/operating.md does for a user that may not pass containerd's root.
    content, layer = (
        first.home / "containerd" / "io.containerd.content.v1.content",
        image.blobs[-1].digest.hex,
    )
    reading = f"exec setpriv --reuid 65534 --regid 65534 --clear-groups sha256sum /mnt/blobs/sha256/{layer}"
    script = f"mount -o bind,ro {content} /mnt && {reading}"
    assert site.bed.outer.run(["unshare", "-m", "sh", "-ec", script], first.name).stdout.startswith(layer)
