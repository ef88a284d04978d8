"""Of an image for several platforms only what a client chooses crosses the WAN, and leaves the origin."""

from __future__ import annotations

import pytest

from tests.system.clients import HUB, ClientSite
from tests.system.test_clients_pull import CLIENTS

pytestmark = pytest.mark.system

MIB = 1 << 20


@pytest.mark.parametrize("name", ["containerd1-cri", "containerd2-cri", "podman", "skopeo-copy", "docker"])
def test_only_the_platform_of_the_node_is_fetched(client_site: ClientSite, name: str) -> None:
    lacking, make = CLIENTS[name]
    if lacking is not None:
        pytest.skip(lacking)
    puller = make(client_site)
    repository = f"library/platforms-{name}"
    platforms = {
        "linux/amd64": client_site.image(),
        "linux/arm64": client_site.image(),
        "linux/s390x": client_site.image(),
    }
    client_site.bed.push_index(platforms, repository)
    wan, link = client_site.bed.wan_bytes(), client_site.bed.origin_link_bytes()
    puller.pull(f"{HUB}/{repository}:v1")
    mine = platforms["linux/amd64"]
    assert puller.has(mine)
    assert (client_site.bed.wan_bytes() - wan).down < 1.2 * mine.blob_bytes
    assert (client_site.bed.origin_link_bytes() - link).down < 1.2 * mine.blob_bytes
