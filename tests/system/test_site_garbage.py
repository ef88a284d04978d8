"""One node of a site turned to garbage: it says it holds everything, and gives wrong bytes or hashes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.testbed import Process, SiteSpec, synthetic_image
from benchmarks.testbed.live_site import LiveSite, assert_right, wait_until
from tests.system.conftest import BuildSite

pytestmark = pytest.mark.system

MIB = 1 << 20
WAN = 80_000_000
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("mode", ["hashes", "pieces"])
def test_every_pull_is_right_beside_a_node_of_garbage(
    build_site: BuildSite, mode: str, tmp_path: Path
) -> None:
    site = LiveSite(build_site(SiteSpec(nodes=4, wan_bit_s=WAN)))
    bed, honest, bad = site.bed, site.nodes[:3], site.nodes[3]
    image = synthetic_image(21, 24 * MIB, 2, tmp_path)
    bed.start_origin()
    ref = bed.push(image)
    bed.start_seeder()
    bed.warm_seeder(ref, image)
    plain_s = site.measure_floor(image)

    command: list[str | Path] = [sys.executable, "-m", "benchmarks.faults.garbage_node"]
    command += [mode, bad.home / "garbage", image.directory]
    garbage = bed.outer.popen(command, bad.name, log=bad.home / "garbage.log", cwd=REPOSITORY)
    assert wait_until(lambda: "ready" in said(garbage) or not garbage.is_running, 30)
    site.start(honest, strangers=1)

    update = site.update(ref, image, honest)
    assert_right(update, image, honest)
    # It was believed at first, or this shows nothing.
    assert said(garbage).count("asked Join") >= 1
    assert update.seconds < plain_s + 40
    assert update.wan_ratio <= 1.5


def said(process: Process) -> list[str]:
    assert process.log is not None
    return process.log.read_text().splitlines()
