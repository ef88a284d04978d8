"""What the mirror serves: from the store, else by the ladder."""

from __future__ import annotations

import json
from contextlib import aclosing, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pd.app.node_content import REMEMBERED
from p2pd.app.tags import FRESH_FOR
from p2pd.app.transfers import FAILURE_REMEMBERED
from p2pd.decide.ownership import object_key, ranked
from p2pd.model.content import OCI_MANIFEST, Descriptor
from p2pd.model.errors import NotFound, Unavailable, WrongContent
from p2pd.model.layout import MIB
from p2pd.model.messages import Query, QueryReply, Reply, Request, Resolve, Resolved
from p2pd.model.reference import Digest, Tag
from tests.support.memory_origin import digest_of
from tests.support.memory_site import REPOSITORY, MemoryNode, MemorySite, node_id, open_site
from tests.support.peer_handlers import ScriptedHandler

SMALL, LARGE = b"layer " * 1000, bytes(range(256)) * 5000
TAG = Tag("v1")


def manifest_of(*blobs: bytes) -> bytes:
    layers = [{"mediaType": "x/y", "digest": str(digest_of(blob)), "size": len(blob)} for blob in blobs]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers}).encode()


def publish(site: MemorySite) -> Digest:
    for source in (site.seeder, site.origin):
        for blob in (SMALL, LARGE):
            source.put(blob)
        source.tag_of["v1"] = source.put(manifest_of(SMALL, LARGE))
    return site.seeder.tag_of["v1"]


async def read(node: MemoryNode, body: bytes) -> bytes:
    blob = await node.content.blob(REPOSITORY, digest_of(body))
    assert blob.size == len(body)
    return b"".join([chunk async for chunk in blob.chunks(0, blob.size)])


async def read_whatever_comes(node: MemoryNode, body: bytes) -> None:
    blob = await node.content.blob(REPOSITORY, digest_of(body))
    async with aclosing(blob.chunks(0, blob.size)) as chunks:
        async for chunk in chunks:
            assert body.startswith(chunk)


async def test_an_image(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False)
        digest = publish(site)
        manifest = await node.content.manifest(REPOSITORY, TAG)
        assert (manifest.descriptor.digest, manifest.stale) == (digest, False)
        assert manifest.body == manifest_of(SMALL, LARGE)
        assert [await read(node, body) for body in (SMALL, LARGE)] == [SMALL, LARGE]
        assert site.origin.asked["blob_size"] == 0, "sizes are known from the manifest"
        assert node.counted("served_bytes") == len(SMALL) + len(LARGE)
        asked = site.origin.asked.total()
        assert [await read(node, body) for body in (SMALL, LARGE)] == [SMALL, LARGE]
        assert site.origin.asked.total() == asked, "held now"


async def test_a_stale_tag_is_marked_and_its_manifest_served(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        node, late = site.join(1), site.join(2)
        await site.met()
        digest = publish(site)
        await node.content.manifest(REPOSITORY, TAG)
        site.cut(Unavailable("cut"))
        await trio.sleep(FRESH_FOR + 1)
        for one in (node, late):
            manifest = await one.content.manifest(REPOSITORY, TAG)
            assert (manifest.descriptor.digest, manifest.stale) == (digest, True)


async def test_a_size_that_no_manifest_told(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        publish(site)
        assert await read(node, SMALL) == SMALL
        assert site.seeder.asked["blob_size"] == 1
        with pytest.raises(NotFound):
            await node.content.blob(REPOSITORY, Digest("0" * 64))


@pytest.mark.parametrize(
    ("sizes", "asks_wan"), [([len(SMALL), len(SMALL)], 0), ([len(SMALL), 5 * MIB], 1), ([], 1)]
)
async def test_a_size_is_taken_from_peers_only_when_all_say_the_same(
    tmp_path: Path, autojump_clock: MockClock, sizes: list[int], asks_wan: int
) -> None:
    def saying(size: int) -> ScriptedHandler:
        async def answer(request: Request) -> Reply:
            if isinstance(request, Query):
                return QueryReply(None, size)
            raise NotFound("nothing else")

        return ScriptedHandler(answer)

    async with open_site(tmp_path) as site:
        node = site.join(1)
        for number, size in enumerate(sizes, 2):
            site.lan.join(node_id(number), saying(size))
        await site.met()
        publish(site)
        assert await read(node, SMALL) == SMALL
        assert site.seeder.asked["blob_size"] == asks_wan


@pytest.mark.parametrize("teller", ["peer", "manifest"])
@pytest.mark.parametrize("body", [SMALL, LARGE])
@pytest.mark.parametrize("size", [100, 3 * MIB])
async def test_a_wrong_size_is_believed_once(
    tmp_path: Path, autojump_clock: MockClock, teller: str, body: bytes, size: int
) -> None:
    async def lie(request: Request) -> Reply:
        if isinstance(request, Query):
            return QueryReply(None, size)
        raise NotFound("nothing else")

    async with open_site(tmp_path) as site:
        node = site.join(1)
        publish(site)
        if teller == "peer":
            site.lan.join(node_id(2), ScriptedHandler(lie))
            await site.met()
        else:
            layers = [{"mediaType": "x/y", "digest": str(digest_of(body)), "size": size}]
            other = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers})
            await node.content.manifest(REPOSITORY, site.seeder.put(other.encode()))
        with suppress(WrongContent):
            await read_whatever_comes(node, body)
        await trio.sleep(FAILURE_REMEMBERED + 1)
        assert await read(node, body) == body


async def test_what_came_out_wrong_is_had_from_peers_where_the_wan_is_cut(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path, swarm=True) as site:
        node, holder = site.join(1), site.join(2)
        await site.met()
        publish(site)
        await node.content.manifest(REPOSITORY, TAG)
        for source in (site.seeder, site.origin):
            source.blobs[digest_of(LARGE)] = LARGE[:-1] + b"!"
        with pytest.raises(WrongContent):
            await read_whatever_comes(node, LARGE)
        await holder.store.write(digest_of(LARGE), LARGE)
        site.cut(Unavailable("the WAN is cut"))
        await trio.sleep(FAILURE_REMEMBERED + 1)
        assert await read(node, LARGE) == LARGE


async def test_sizes_remembered_are_bounded(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pd.app.node_content.REMEMBERED", 5)
    assert REMEMBERED > 5
    async with open_site(tmp_path) as site:
        node = site.join(1)
        publish(site)
        for number in range(3):
            blobs = [bytes([number, other]) for other in range(5)]
            digest = site.seeder.put(manifest_of(*blobs))
            await node.content.manifest(REPOSITORY, digest)
        await node.content.manifest(REPOSITORY, TAG)
        assert await read(node, SMALL) == SMALL
        assert site.seeder.asked["blob_size"] == 0, "the latest are kept"
        site.seeder.put(b"\0\0")
        assert await read(node, b"\0\0") == b"\0\0"
        assert site.seeder.asked["blob_size"] == 1, "the oldest made room"


async def test_rot_in_a_small_blob_is_not_seen(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        publish(site)
        node.store.blobs[digest_of(SMALL)] = SMALL[:-1] + b"!"
        assert await read(node, SMALL) == SMALL


async def test_lists_come_over_the_wan(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1)
        assert json.loads((await node.content.tags(REPOSITORY, "")).body)["tags"] == []
        body = await node.content.referrers(REPOSITORY, Digest("0" * 64), "a/b")
        assert json.loads(body.body)["manifests"] == []


async def test_a_tag_that_a_peer_points_at_nothing_is_asked_upstream(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        nodes = {node_id(number): site.join(number, seeder=False) for number in range(1, 4)}
        await site.met()
        digest = publish(site)
        liar, *honest = ranked(object_key(f"tag {REPOSITORY}:v1"), list(nodes))

        async def lie(message: Resolve) -> Resolved:
            await trio.lowlevel.checkpoint()
            return Resolved(Descriptor(Digest("0" * 64), 1, OCI_MANIFEST))

        nodes[liar].tags.answer_peer = lie  # type: ignore[method-assign]
        for node in honest:
            manifest = await nodes[node].content.manifest(REPOSITORY, TAG)
            assert manifest.descriptor.digest == digest
