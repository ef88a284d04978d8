"""A layer larger than 4 GiB, through a cut of the WAN and one of the power. Takes long: `pytest -m slow`."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.testbed import SiteSpec, Testbed, missing_prerequisite, synthetic_image
from benchmarks.testbed.live_site import LiveSite, assert_right, log_events

pytestmark = [pytest.mark.system, pytest.mark.slow]

GIB = 1 << 30
SPEC = SiteSpec(nodes=1, wan_bit_s=1_000_000_000, disk_bytes=36 * GIB)
PATIENCE = 3600.0
CUT_S = 4.0
"""Less than what a transfer waits for."""


def test_six_gib_go_through_and_resume(tmp_path: Path) -> None:
    if (why := missing_prerequisite()) is not None:
        pytest.skip(f"no testbed: {why}")
    # Not tmp_path alone: pytest would keep the image of the last three runs.
    with TemporaryDirectory(dir=tmp_path) as cache, Testbed(SPEC) as bed:
        site, image = LiveSite(bed), synthetic_image(20, 6 * GIB, 1, Path(cache))
        bed.start_origin()
        ref = bed.push(image)
        bed.start_seeder()
        site.start()
        node = site.nodes[0]

        def cuts() -> None:
            site.wait_held(node, 1 * GIB, PATIENCE)
            bed.cut_wan()
            time.sleep(CUT_S)
            bed.restore_wan()
            site.wait_held(node, 5 * GIB, PATIENCE)
            node.kill_containerd()
            node.kill()

        cut = site.update(ref, image, during=cuts, patience=PATIENCE)
        assert cut.outcomes[0].code != 0
        node.start_containerd()
        node.start_p2pd()
        node.wait_containerd()
        node.wait_p2pd()
        again = site.update(ref, image, patience=PATIENCE)
        assert_right(again, image, [node])
        assert log_events(node.p2pd, "transfer.begins")[-1]["had"] >= 4 * GIB
        assert cut.wan_ratio + again.wan_ratio <= 1.15
