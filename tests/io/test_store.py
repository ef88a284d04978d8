"""The store on files: rot, restarts, leftovers, and who may use a directory."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from p2pd.io import store as store_module
from p2pd.io.store import FileStore
from p2pd.model.content import Descriptor
from p2pd.model.errors import StoreError
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.store import TagRecord
from tests.support.power import StepFiles

KIB = 1024
BODY = random.Random(3).randbytes(1500 * KIB)
SMALL = BODY[: 10 * KIB]


def digest_of(body: bytes) -> Digest:
    return Digest(hashlib.sha256(body).hexdigest())


def blob_path(root: Path, body: bytes) -> Path:
    hex_ = digest_of(body).hex
    return root / "blobs" / "sha256" / hex_[:2] / hex_


def sidecar_path(root: Path, body: bytes) -> Path:
    return blob_path(root, body).with_name(digest_of(body).hex + ".pieces")


async def read(store: FileStore, body: bytes, start: int = 0, stop: int = 1 << 40) -> bytes:
    blob = await store.open(digest_of(body))
    assert blob is not None
    async with aclosing(blob.chunks(start, stop)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def reopened(store: FileStore, root: Path) -> FileStore:
    store.close()
    return await FileStore.open_dir(root, StepFiles())


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


@pytest.fixture
async def store(tmp_path: Path) -> FileStore:
    store = await FileStore.open_dir(tmp_path, StepFiles())
    for body in (BODY, SMALL):
        await store.write(digest_of(body), body)
    return store


async def test_layout_on_disk(store: FileStore, tmp_path: Path) -> None:
    await store.put_tag(
        Repository("localhost:5000", "a/b"), Tag("v1"), TagRecord(Descriptor(digest_of(SMALL), 1, "x/y"), 1.0)
    )
    assert blob_path(tmp_path, BODY).read_bytes() == BODY
    assert sidecar_path(tmp_path, BODY).is_file()
    assert not sidecar_path(tmp_path, SMALL).exists()
    assert (tmp_path / "tags" / "localhost%3A5000" / "a%2Fb" / "v1.json").is_file()


async def test_rotten_piece_never_leaves_and_drops_the_blob(store: FileStore, tmp_path: Path) -> None:
    flip(blob_path(tmp_path, BODY), 600 * KIB)
    assert await read(store, BODY, 0, 512 * KIB) == BODY[: 512 * KIB]
    blob = await store.open(digest_of(BODY))
    assert blob is not None
    async with aclosing(blob.chunks(0, len(BODY))) as chunks:
        assert await anext(chunks) + await anext(chunks) == BODY[: 512 * KIB]
        with pytest.raises(StoreError, match="corrupt"):
            await anext(chunks)
    assert store.size_of(digest_of(BODY)) is None
    assert not blob_path(tmp_path, BODY).exists()
    store = await reopened(store, tmp_path)
    assert store.size_of(digest_of(BODY)) is None


async def test_rotten_small_blob_never_leaves(store: FileStore, tmp_path: Path) -> None:
    blob = await store.open(digest_of(SMALL))
    assert blob is not None
    flip(blob_path(tmp_path, SMALL), 5)
    with pytest.raises(StoreError):
        await anext(blob.chunks(0, 3))
    assert store.size_of(digest_of(SMALL)) is None
    await store.write(digest_of(SMALL), SMALL)
    flip(blob_path(tmp_path, SMALL), 5)
    assert await store.read(digest_of(SMALL)) is None
    assert store.size_of(digest_of(SMALL)) is None
    await store.write(digest_of(SMALL), SMALL)
    flip(blob_path(tmp_path, SMALL), 5)
    assert await store.segment_meta(digest_of(SMALL), 0) is None


@pytest.mark.parametrize("body", [BODY, SMALL])
async def test_file_that_is_gone_or_cut_is_no_longer_held(
    store: FileStore, tmp_path: Path, body: bytes
) -> None:
    os.truncate(blob_path(tmp_path, body), 100)
    assert await store.open(digest_of(body)) is None
    assert store.size_of(digest_of(body)) is None
    await store.write(digest_of(body), body)
    blob_path(tmp_path, body).unlink()
    assert await store.open(digest_of(body)) is None
    await store.write(digest_of(body), body)
    blob_path(tmp_path, body).unlink()
    assert await store.read(digest_of(body)) is None
    assert store.size_of(digest_of(body)) is None


async def test_blob_cut_while_it_is_read_ends_in_an_error(store: FileStore, tmp_path: Path) -> None:
    blob = await store.open(digest_of(BODY))
    assert blob is not None
    async with aclosing(blob.chunks(0, len(BODY))) as chunks:
        assert await anext(chunks)
        os.truncate(blob_path(tmp_path, BODY), 300 * KIB)
        with pytest.raises(StoreError):
            await anext(chunks)


@pytest.mark.parametrize("harm", ["missing", "torn", "rotten", "empty"])
@pytest.mark.parametrize("restart", [False, True])
async def test_sidecar_is_made_again(store: FileStore, tmp_path: Path, harm: str, restart: bool) -> None:
    path = sidecar_path(tmp_path, BODY)
    right = path.read_bytes()
    before = await store.segment_meta(digest_of(BODY), 0)
    if harm == "missing":
        path.unlink()
    elif harm == "rotten":
        flip(path, 12)
    else:
        os.truncate(path, 0 if harm == "empty" else len(right) - 3)
    if restart:
        store = await reopened(store, tmp_path)
    assert await read(store, BODY) == BODY
    assert path.read_bytes() == right
    assert await store.segment_meta(digest_of(BODY), 0) == before


async def test_sidecar_is_not_made_from_rotten_bytes(store: FileStore, tmp_path: Path) -> None:
    sidecar_path(tmp_path, BODY).unlink()
    flip(blob_path(tmp_path, BODY), 0)
    assert await store.open(digest_of(BODY)) is None
    assert not blob_path(tmp_path, BODY).exists()


async def test_restart_finds_what_is_held_and_drops_what_cannot_be(store: FileStore, tmp_path: Path) -> None:
    shard = blob_path(tmp_path, BODY).parent
    (shard / "README").write_text("not ours")
    (shard / ("0" * 64)).write_text("in the wrong shard")
    (shard / f"{shard.name}{'0' * 62}.pieces").write_text("of no blob")
    (tmp_path / "scratch" / "77").write_text("left behind")
    store = await reopened(store, tmp_path)
    assert dict(store.held()) == {digest_of(BODY): len(BODY), digest_of(SMALL): len(SMALL)}
    assert {path.name for path in shard.iterdir()} >= {"README", "0" * 64}
    assert not (shard / f"{shard.name}{'0' * 62}.pieces").exists()
    assert not list((tmp_path / "scratch").iterdir())
    os.truncate(blob_path(tmp_path, BODY), 1200 * KIB)
    store = await reopened(store, tmp_path)
    assert dict(store.held()) == {digest_of(SMALL): len(SMALL)}
    assert not blob_path(tmp_path, BODY).exists()


async def test_restart_keeps_live_staging_and_removes_stale(store: FileStore, tmp_path: Path) -> None:
    fresh, old, held = (store.staged_path(digest_of(body), 3) for body in (b"fresh", b"old", BODY))
    for path in (fresh, old, held):
        path.write_bytes(b"x")
    day_ago = time.time() - 25 * 3600
    os.utime(old, (day_ago, day_ago))
    (tmp_path / "partial" / f"{digest_of(BODY).hex}.{len(BODY)}").write_bytes(BODY)
    await reopened(store, tmp_path)
    assert [path.exists() for path in (fresh, old, held)] == [True, False, False]
    assert not list((tmp_path / "partial").iterdir())


async def test_many_blobs_are_found_quickly(tmp_path: Path) -> None:
    (await FileStore.open_dir(tmp_path, StepFiles())).close()
    for number in range(1500):
        path = blob_path(tmp_path, b"%d" % number)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    began = time.process_time()
    store = await FileStore.open_dir(tmp_path, StepFiles())
    assert len(list(store.held())) == 1500
    assert time.process_time() - began < 0.3


async def test_rotten_assembly_is_cut_at_the_last_good_piece(store: FileStore, tmp_path: Path) -> None:
    body = BODY[: 1400 * KIB]
    partial = await store.begin(digest_of(body), len(body))
    await partial.append(body[: 1300 * KIB])
    await partial.aclose()
    path = tmp_path / "partial" / f"{digest_of(body).hex}.{len(body)}"
    flip(path, 600 * KIB)
    partial = await store.begin(digest_of(body), len(body))
    assert partial.frontier == 512 * KIB
    assert path.stat().st_size == 512 * KIB
    await partial.append(body[512 * KIB :])
    await partial.commit()
    await partial.aclose()
    assert await read(store, body) == body


@pytest.fixture
def bad_sectors(monkeypatch: pytest.MonkeyPatch) -> dict[Path, int]:
    """Files of which a read that takes in the byte at this offset fails."""
    bad: dict[Path, int] = {}
    pread = os.pread

    def failing(fd: int, length: int, offset: int) -> bytes:
        at = bad.get(Path(f"/proc/self/fd/{fd}").readlink())
        if at is not None and offset <= at < offset + length:
            raise OSError(errno.EIO, "bad sector")
        return pread(fd, length, offset)

    monkeypatch.setattr("p2pd.io.files.os.pread", failing)
    return bad


async def test_bad_sectors_cost_what_is_on_them(
    store: FileStore, tmp_path: Path, bad_sectors: dict[Path, int]
) -> None:
    bad_sectors[blob_path(tmp_path, SMALL)] = bad_sectors[sidecar_path(tmp_path, BODY)] = 5
    assert await store.read(digest_of(SMALL)) is None, "to be fetched again"
    assert store.size_of(digest_of(SMALL)) is None
    store = await reopened(store, tmp_path)
    assert await read(store, BODY) == BODY, "checksums are made again"
    del bad_sectors[sidecar_path(tmp_path, BODY)]
    bad_sectors[blob_path(tmp_path, BODY)] = 600 * KIB
    with pytest.raises(StoreError, match="corrupt"):
        await read(store, BODY)
    assert dict(store.held()) == {}


async def test_an_assembly_is_gone_on_with_from_a_bad_sector(
    store: FileStore, tmp_path: Path, bad_sectors: dict[Path, int]
) -> None:
    body = BODY[: 1400 * KIB]
    partial = await store.begin(digest_of(body), len(body))
    await partial.append(body[: 1300 * KIB])
    await partial.aclose()
    bad_sectors[tmp_path / "partial" / f"{digest_of(body).hex}.{len(body)}"] = 600 * KIB
    partial = await store.begin(digest_of(body), len(body))
    assert partial.frontier == 512 * KIB
    await partial.aclose()


async def test_assembly_of_another_size_is_dropped(store: FileStore, tmp_path: Path) -> None:
    sizes = (1000 * KIB, 2000 * KIB)
    for size in sizes:
        partial = await store.begin(digest_of(b"x"), size)
        await partial.append(b"x" * 256 * KIB)
        await partial.aclose()
    names = {path.name for path in (tmp_path / "partial").iterdir()}
    name = f"{digest_of(b'x').hex}.{sizes[-1]}"
    assert names == {name, f"{name}.pieces"}


async def test_assembly_that_got_nothing_leaves_nothing(store: FileStore, tmp_path: Path) -> None:
    partial = await store.begin(digest_of(b"x"), 1000 * KIB)
    await partial.append(b"less than a piece, which no journal vouches for")
    await partial.aclose()
    assert list((tmp_path / "partial").iterdir()) == []


async def test_each_of_a_crowd_reads_little_at_a_time(store: FileStore) -> None:
    body = random.Random(4).randbytes(3 * 1024 * KIB)
    assembly = await store.begin(digest_of(body), len(body))
    await assembly.append(body)
    await assembly.commit()
    async with AsyncExitStack() as readers:
        readings = [aclosing(assembly.chunks(0, len(body))) for _ in range(200)]
        crowd = [await readers.enter_async_context(chunks) for chunks in readings]
        first = [await anext(chunks) for chunks in crowd]
        assert len(first[0]) == 1024 * KIB
        assert sum(map(len, first[100:])) <= 32 * 1024 * KIB
        assert b"".join([first[-1], *[chunk async for chunk in crowd[-1]]]) == body
    await assembly.aclose()


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("io.segment_files", "model.layout"):
        monkeypatch.setattr(f"p2pd.{module}.SEGMENT", 512 * KIB)


async def assembled(store: FileStore, body: bytes) -> None:
    assembly = await store.begin(digest_of(body), len(body))
    await assembly.append(body)
    await assembly.commit()
    await assembly.aclose()


@pytest.mark.usefixtures("short_segments")
async def test_a_staged_segment_is_the_blobs_own_file(store: FileStore, tmp_path: Path) -> None:
    body = random.Random(21).randbytes(1200 * KIB)
    await assembled(store, body)
    staged = await store.stage(digest_of(body), 1)
    assert staged is not None
    assert staged.samefile(blob_path(tmp_path, body) / "1")
    assert [each.size for each in await store.leftovers()] == [256 * KIB], "half of it is the blob's"
    own = await store.own_staged(digest_of(body), 1)
    assert not own.samefile(blob_path(tmp_path, body) / "1")
    store = await reopened(store, tmp_path)
    assert store.size_of(digest_of(body)) == len(body)
    assert await read(store, body) == body


@pytest.mark.usefixtures("short_segments")
async def test_a_segment_is_staged_while_its_blob_is_committed(tmp_path: Path) -> None:
    body = random.Random(26).randbytes(1200 * KIB)
    store = await FileStore.open_dir(tmp_path, files := StepFiles())
    assembly = await store.begin(digest_of(body), len(body))
    await assembly.append(body)

    def commit_first(_number: int, name: str) -> None:
        if name == "link":
            trio.from_thread.run(assembly.commit)

    files.on_step = commit_first
    staged = await store.stage(digest_of(body), 1)
    assert staged is not None
    assert staged.read_bytes() == body[512 * KIB : 1024 * KIB]
    await assembly.aclose()


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("harm", ["rot", "cut", "gone"])
async def test_peers_are_given_no_rotten_segment(store: FileStore, tmp_path: Path, harm: str) -> None:
    body = random.Random(22).randbytes(1200 * KIB)
    await assembled(store, body)
    path = blob_path(tmp_path, body) / "1"
    if harm == "rot":
        flip(path, 300 * KIB)
        with pytest.raises(StoreError, match="corrupt"):
            await store.stage(digest_of(body), 1)
    elif harm == "cut":
        os.truncate(path, 300 * KIB)
        assert await store.stage(digest_of(body), 1) is None
    else:
        path.unlink()
        assert await store.stage(digest_of(body), 1) is None
    assert store.size_of(digest_of(body)) is None
    assert not store.staged_path(digest_of(body), 1).exists()
    assert not blob_path(tmp_path, body).exists()


@pytest.mark.usefixtures("short_segments")
async def test_readers_go_on_while_a_blob_of_many_segments_is_dropped(
    store: FileStore, tmp_path: Path
) -> None:
    body = random.Random(23).randbytes(6 * 1024 * KIB)
    assembly = await store.begin(digest_of(body), len(body))
    await assembly.append(body)
    async with aclosing(assembly.chunks(0, len(body))) as early:
        parts = [await anext(early)]
        await assembly.commit()
        blob = await store.open(digest_of(body))
        assert blob is not None
        async with aclosing(blob.chunks(0, len(body))) as late:
            first = await anext(late)
            await store.drop(digest_of(body))
            assert not blob_path(tmp_path, body).exists()
            assert first + b"".join([chunk async for chunk in late]) == body
        parts += [chunk async for chunk in early]
    await assembly.aclose()
    assert b"".join(parts) == body


@pytest.mark.usefixtures("short_segments")
async def test_a_blob_that_could_not_be_deleted_does_not_bar_its_successor(
    store: FileStore, tmp_path: Path
) -> None:
    body = random.Random(24).randbytes(1200 * KIB)
    await assembled(store, body)
    shutil.copytree(blob_path(tmp_path, body), tmp_path / "copy")
    await store.drop(digest_of(body))
    (tmp_path / "copy").rename(blob_path(tmp_path, body))
    await assembled(store, body)
    assert await read(store, body) == body


@pytest.mark.usefixtures("short_segments")
async def test_what_an_earlier_release_kept_in_one_file_is_held(store: FileStore, tmp_path: Path) -> None:
    body = random.Random(25).randbytes(1200 * KIB)
    await store.write(digest_of(body), body)
    assert blob_path(tmp_path, body).is_file()
    store = await reopened(store, tmp_path)
    assert await read(store, body) == body
    staged = await store.stage(digest_of(body), 1)
    assert staged is not None
    assert staged.read_bytes() == body[512 * KIB : 1024 * KIB]
    await store.drop(digest_of(body))
    assert not blob_path(tmp_path, body).exists()


async def test_second_user_is_refused_in_one_line(store: FileStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"in use by another process; stop that or choose another") as caught:
        await FileStore.open_dir(tmp_path)
    assert str(tmp_path) in str(caught.value)
    store.close()
    (await FileStore.open_dir(tmp_path)).close()


async def test_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot open the store in"):
        await FileStore.open_dir(tmp_path / "file" / "store")


async def test_read_only_disk_still_serves(store: FileStore, tmp_path: Path) -> None:
    def refuse(_number: int, _name: str) -> None:
        raise OSError(30, "Read-only file system")

    files = StepFiles()
    store.close()
    store = await FileStore.open_dir(tmp_path, files)
    files.on_step = refuse
    with pytest.raises(StoreError, match="Read-only file system; remount the file system read-write"):
        await store.write(digest_of(b"new"), b"new")
    with pytest.raises(StoreError, match="cannot begin"):
        await store.begin(digest_of(b"new"), 3)
    assert await read(store, BODY) == BODY
    sidecar_path(tmp_path, BODY).unlink()
    assert await read(store, BODY) == BODY
    flip(blob_path(tmp_path, SMALL), 0)
    assert await store.read(digest_of(SMALL)) is None
    assert store.size_of(digest_of(SMALL)) is None


async def test_corrupt_tag_is_dropped(store: FileStore, tmp_path: Path) -> None:
    repository, tag = Repository("docker.io", "library/alpine"), Tag("3.20")
    await store.put_tag(repository, tag, TagRecord(Descriptor(digest_of(SMALL), 1, "x/y"), 1.0))
    path = tmp_path / "tags" / "docker.io" / "library%2Falpine" / "3.20.json"
    path.write_bytes(path.read_bytes()[:-5])
    assert await store.tag(repository, tag) is None
    assert not path.exists()


@pytest.mark.parametrize("step", ["load_table", "open_blob"])
async def test_what_is_let_go_while_it_is_opened_is_not_lost(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await store.write(digest_of(BODY), BODY)
    monkeypatch.setattr(f"p2pd.io.store.{step}", _after_drop(store, getattr(store_module, step)))
    with capture_logs() as logs:
        assert await store.open(digest_of(BODY)) is None
    assert logs == []
    assert store.lost == 0
    assert not sidecar_path(tmp_path, BODY).exists()


def _after_drop(store: FileStore, call: Callable[..., object]) -> Callable[..., object]:
    def called(*args: object) -> object:
        trio.from_thread.run(store.drop, digest_of(BODY))
        return call(*args)

    return called
