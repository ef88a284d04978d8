"""An update, or a stop, loses no pull: real containerds pull while what they pull through is restarted."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.testbed import Image, Node, SiteSpec, Testbed, missing_prerequisite, synthetic_image
from benchmarks.testbed.live_site import LiveSite, assert_right

pytestmark = pytest.mark.system

NODES = 4
ROUNDS = 5
STOPS_WITHIN = 10.0


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return synthetic_image(91, 16_000_000, 2, tmp_path_factory.mktemp("restarts"))


@pytest.fixture(scope="module")
def built(image: Image) -> Iterator[tuple[LiveSite, str]]:
    """A site, its seeder warm, and what to pull."""
    if (why := missing_prerequisite()) is not None:
        pytest.skip(f"no testbed: {why}")
    with Testbed(SiteSpec(nodes=NODES, wan_bit_s=60_000_000)) as bed:
        bed.start_origin()
        ref = bed.push(image)
        bed.start_seeder()
        bed.warm_seeder(ref, image)
        yield LiveSite(bed), ref


def stop(node: Node) -> None:
    """SIGTERM; it ends in good order, and in time."""
    assert node.p2pd is not None
    begun = time.monotonic()
    assert node.p2pd.stop(STOPS_WITHIN + 5) == 0, node.p2pd.last_words()
    assert time.monotonic() - begun < STOPS_WITHIN


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_every_node_is_restarted_in_mid_pull(built: tuple[LiveSite, str], image: Image, seed: int) -> None:
    """Twenty pulls in all, each with a stop at a moment of its own."""
    site, ref = built
    moments = random.Random(seed)
    shares = [moments.uniform(0, 0.9) for _ in site.nodes]

    def restart(node: Node, share: float) -> None:
        site.wait_held(node, int(share * image.blob_bytes))
        stop(node)
        node.start_p2pd()

    def restart_all() -> None:
        with ThreadPoolExecutor(NODES) as pool:
            list(pool.map(restart, site.nodes, shares))

    site.start()
    assert_right(site.update(ref, image, during=restart_all), image, site.nodes)


def test_the_seeder_is_restarted_twice_in_mid_pull(built: tuple[LiveSite, str], image: Image) -> None:
    site, ref = built
    bed = site.bed

    def restart_seeder() -> None:
        for share in (0.1, 0.5):
            site.wait_held(site.nodes[0], int(share * image.blob_bytes))
            assert bed.seeder is not None
            begun = time.monotonic()
            assert bed.seeder.stop(STOPS_WITHIN + 5) == 0, bed.seeder.last_words()
            assert time.monotonic() - begun < STOPS_WITHIN
            bed.start_seeder()

    site.start()
    assert_right(site.update(ref, image, during=restart_seeder), image, site.nodes)
