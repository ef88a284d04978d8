"""Content of a containerd's store, held by ours without a copy."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from p2pd.io import runtime
from p2pd.io.store import FileStore
from p2pd.model.errors import StoreError
from p2pd.model.layout import MIB, SMALL_BLOB
from p2pd.model.reference import Digest
from tests.io.test_store_conformance import meta
from tests.support.waiting import until

LARGE = random.Random(7).randbytes(2 * MIB + 99)
SMALL = b"a config"


def unchanging(path: Path) -> tuple[int, ...]:
    """What reading leaves as it is."""
    status = path.stat()
    return status.st_ino, status.st_nlink, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def digest_of(body: bytes) -> Digest:
    return Digest(hashlib.sha256(body).hexdigest())


class Containerd:
    """Files as containerd keeps them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "io.containerd.content.v1.content" / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)

    def put(self, body: bytes, digest: Digest | None = None) -> Path:
        path = self.blobs / (digest or digest_of(body)).hex
        scratch = self.root / "ingest"
        scratch.write_bytes(body)
        scratch.chmod(0o444)
        scratch.replace(path)
        return path


@pytest.fixture
def containerd(tmp_path: Path) -> Containerd:
    return Containerd(tmp_path / "containerd")


async def open_store(tmp_path: Path, containerd: Containerd, nursery: trio.Nursery) -> FileStore:
    store = await FileStore.open_dir(tmp_path / "store")
    nursery.start_soon(store.use_runtime(containerd.root).run)
    return store


@pytest.fixture
async def store(tmp_path: Path, containerd: Containerd, nursery: trio.Nursery) -> AsyncIterator[FileStore]:
    store = await open_store(tmp_path, containerd, nursery)
    yield store
    store.close()


async def read(store: FileStore, digest: Digest) -> bytes:
    blob = await store.open(digest)
    assert blob is not None
    async with aclosing(blob.chunks(0, blob.size)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_what_containerd_holds_is_held_once_it_was_looked_for(
    store: FileStore, containerd: Containerd, tmp_path: Path
) -> None:
    for body in (LARGE, SMALL):
        path, digest = containerd.put(body), digest_of(body)
        before = unchanging(path)
        assert store.size_of(digest) is None
        assert await store.look(digest, 30) == len(body)
        assert store.size_of(digest) == len(body)
        assert await read(store, digest) == body
        assert unchanging(path) == before
    assert await store.read(digest_of(SMALL)) == SMALL
    assert dict(store.held()) == {digest_of(LARGE): len(LARGE), digest_of(SMALL): len(SMALL)}
    assert await store.segment_meta(digest_of(LARGE), 0) == meta(LARGE, 0)
    staged = await store.stage(digest_of(LARGE), 0)
    assert staged is not None
    assert staged.read_bytes() == LARGE
    assert store.stock().held == (), "nothing of it is this store's to let go"
    assert not any((tmp_path / "store" / "blobs").rglob("?" * 64))


async def test_what_is_not_there_or_too_large_is_not_waited_for(
    store: FileStore, containerd: Containerd
) -> None:
    containerd.put(LARGE)
    assert await store.look(digest_of(b"other"), 30) is None
    assert await store.look(digest_of(LARGE), 30, SMALL_BLOB) is None
    assert store.size_of(digest_of(LARGE)) is None


async def test_wrong_bytes_are_not_held_and_not_hashed_again(
    store: FileStore, containerd: Containerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = digest_of(LARGE)
    path = containerd.put(LARGE[:-1] + b"!", digest)
    assert await store.look(digest, 30) is None
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "hash_file", None)
        assert await store.look(digest, 30) is None
    path.unlink()
    os.utime(containerd.put(LARGE), (1, 1))
    assert await store.look(digest, 30) == len(LARGE)


async def test_a_file_that_containerd_deletes_is_no_longer_held(
    store: FileStore, containerd: Containerd
) -> None:
    for body in (LARGE, SMALL):
        digest, path = digest_of(body), containerd.put(body)
        with capture_logs() as lines:
            assert await store.look(digest, 30) == len(body)
            open_before = await store.open(digest)
            path.unlink()
            assert await store.open(digest) is None
            assert store.size_of(digest) is None
            containerd.put(body)
            assert await store.look(digest, 30) == len(body)
            path.unlink()
            assert await store.look(digest, 30) is None
            assert await store.read(digest) is None
        assert [line for line in lines if line["log_level"] in ("warning", "error")] == []
        assert open_before is not None
        assert open_before.size == len(body)


async def test_rot_is_found_before_it_leaves(store: FileStore, containerd: Containerd) -> None:
    digest, path = digest_of(LARGE), containerd.put(LARGE)
    assert await store.look(digest, 30) == len(LARGE)
    known = path.stat()
    path.chmod(0o644)
    path.write_bytes(LARGE[:-1] + b"!")
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
    with pytest.raises(StoreError):
        await read(store, digest)
    assert store.size_of(digest) is None
    assert await store.look(digest, 30) is None
    assert path.exists()


async def test_what_was_hashed_once_is_known_after_a_restart(
    containerd: Containerd, tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await open_store(tmp_path, containerd, nursery)
    path = containerd.put(LARGE)
    assert await first.look(digest_of(LARGE), 30) == len(LARGE)
    first.close()
    monkeypatch.setattr(runtime, "hash_file", None)
    again = await open_store(tmp_path, containerd, nursery)
    assert await again.look(digest_of(LARGE), 30) == len(LARGE)
    assert await read(again, digest_of(LARGE)) == LARGE
    again.close()
    path.unlink()
    last = await open_store(tmp_path, containerd, nursery)
    await until(lambda: not list((tmp_path / "store" / "vouched").iterdir()))
    last.close()


async def test_a_torn_mark_is_no_mark(containerd: Containerd, tmp_path: Path, nursery: trio.Nursery) -> None:
    containerd.put(LARGE)
    first = await open_store(tmp_path, containerd, nursery)
    await first.look(digest_of(LARGE), 30)
    first.close()
    [mark] = (tmp_path / "store" / "vouched").iterdir()
    whole = mark.read_bytes()
    for torn in (b"", whole[:-1], whole[:20], whole[:50] + b"?" + whole[51:]):
        mark.write_bytes(torn)
        again = await open_store(tmp_path, containerd, nursery)
        assert await again.look(digest_of(LARGE), 30) == len(LARGE)
        again.close()


async def test_who_asks_for_a_manifest_finds_its_layers_ready(
    store: FileStore, containerd: Containerd
) -> None:
    layers = [{"digest": str(digest_of(LARGE)), "size": len(LARGE), "mediaType": "x"}]
    manifest = json.dumps({"schemaVersion": 2, "layers": layers}).encode()
    containerd.put(manifest)
    containerd.put(LARGE)
    assert await store.look(digest_of(manifest), 30, SMALL_BLOB) == len(manifest)
    await until(lambda: store.size_of(digest_of(LARGE)) == len(LARGE))


async def test_content_stays_held_when_our_own_copy_goes(store: FileStore, containerd: Containerd) -> None:
    digest = digest_of(LARGE)
    await store.write(digest, LARGE)
    containerd.put(LARGE)
    await store.drop(digest)
    assert await store.look(digest, 30) == len(LARGE)
    assert await read(store, digest) == LARGE


async def test_a_directory_that_may_not_be_read_is_told_once_and_holds_nothing(
    containerd: Containerd, tmp_path: Path, nursery: trio.Nursery
) -> None:
    containerd.put(LARGE)
    store = await FileStore.open_dir(tmp_path / "store")
    runtime_content = store.use_runtime(containerd.root)
    blocked = containerd.root / "io.containerd.content.v1.content"
    blocked.rename(containerd.root / "elsewhere")
    blocked.write_text("no directory")
    with capture_logs() as lines:
        nursery.start_soon(runtime_content.run)
        assert await store.look(digest_of(LARGE), 1) is None
        await until(lambda: any(line["event"] == "runtime.unreadable" for line in lines))
    store.close()


async def test_a_copy_may_go_when_containerd_s_file_is_right(
    store: FileStore, containerd: Containerd, tmp_path: Path
) -> None:
    digest = digest_of(LARGE)
    partial = await store.begin(digest, len(LARGE))
    await partial.append(LARGE)
    await partial.commit()
    await partial.aclose()
    assert not await store.has_twin(digest, 5)
    path = containerd.put(LARGE)
    assert await store.has_twin(digest, 5)
    await store.drop(digest)
    assert not list((tmp_path / "store" / "blobs").rglob(digest.hex))
    assert store.size_of(digest) == len(LARGE)
    assert await read(store, digest) == LARGE
    path.unlink()
    assert await store.open(digest) is None


async def test_a_wrong_file_of_containerd_is_no_twin(store: FileStore, containerd: Containerd) -> None:
    await store.write(digest_of(SMALL), SMALL)
    containerd.put(SMALL[:-1] + b"!", digest_of(SMALL))
    assert not await store.has_twin(digest_of(SMALL), 5)
