"""Limits of WAN and LAN, as the clients of a real site feel them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.testbed import SiteSpec, Testbed, missing_prerequisite, synthetic_image
from benchmarks.testbed.live_site import LiveSite, assert_right

pytestmark = pytest.mark.system

MIB = 1 << 20
WAN = 80_000_000
WAN_LIMIT, LAN_LIMIT = 16_000_000, 24_000_000
LIMITS = {
    "wan": {"site_rate_limit": f"{WAN_LIMIT // 10**6} Mbit/s"},
    "lan": {"rate_limit": f"{LAN_LIMIT // 10**6} Mbit/s"},
}


def test_a_site_keeps_to_its_limits(tmp_path: Path) -> None:
    if (why := missing_prerequisite()) is not None:
        pytest.skip(f"no testbed: {why}")
    image = synthetic_image(1, 12 * MIB, 1, tmp_path)
    with Testbed(SiteSpec(nodes=3, wan_bit_s=WAN)) as bed:
        site = LiveSite(bed)
        bed.start_origin()
        ref = bed.push(image, tag="limited")
        site.measure_floor(image)
        bed.start_seeder()
        bed.warm_seeder(ref, image)
        site.start(changes=LIMITS)
        update = site.update(ref, image, site.nodes[:2])
        assert_right(update, image, site.nodes[:2])
        # Two nodes: half of it each, and both together no faster than the site's limit.
        at_limit = 8 * image.blob_bytes / WAN_LIMIT
        assert 0.85 * at_limit <= update.seconds <= 1.6 * at_limit + 2
        late = site.update(ref, image, site.nodes[2:])
        assert_right(late, image, site.nodes[2:])
        at_limit = 8 * image.blob_bytes / LAN_LIMIT
        assert 0.85 * at_limit <= late.seconds <= 1.6 * at_limit + 2
        assert late.wan_bytes < MIB
