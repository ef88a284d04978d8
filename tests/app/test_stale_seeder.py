"""A tag that only the seeder remembers is served, and marked."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from p2pd.model.content import Manifest, StaleTag
from p2pd.model.errors import Unavailable
from p2pd.model.reference import Tag
from tests.support.edge import REPOSITORY, open_edge

BODY = json.dumps({"schemaVersion": 2, "config": {}, "layers": []}).encode()


async def test_a_seeders_memory_is_marked_stale(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as edge:
        node = await edge.join(1)
        digest = edge.seeder.put(BODY)
        found = Manifest.verified(BODY, digest).descriptor
        edge.seeder.tag_fault = StaleTag("it only remembers", found)
        edge.origin.fault = Unavailable("the origin is away")
        with trio.fail_after(5):
            manifest = await node.content.manifest(REPOSITORY, Tag("v1"))
        assert manifest.body == BODY
        assert manifest.stale
        assert await node.site.store.tag(REPOSITORY, Tag("v1")) is None, "not kept as confirmed"
        edge.seeder.tag_fault = None
        edge.seeder.tag_of["v1"] = digest
        with trio.fail_after(5):
            assert not (await node.content.manifest(REPOSITORY, Tag("v1"))).stale
