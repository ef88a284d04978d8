"""The store when the power, the disk or the caller's patience fails at any step."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest
import trio

from p2pd.io.partial import FilePartial
from p2pd.io.pieces import PieceHasher
from p2pd.io.store import FileStore
from p2pd.model.content import Descriptor
from p2pd.model.errors import StoreError, StoreFull
from p2pd.model.layout import Layout, SegmentMeta
from p2pd.model.listing import ListingKey
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.store import ListingRecord, TagRecord
from tests.support.power import CutFiles, PowerCut, StepFiles

KIB = 1024
RANDOM = random.Random(11)
HELD, LARGE, SMALL, SWARMED, GONE = (RANDOM.randbytes(n * 700) for n in (1755, 1024, 1, 850, 2))
REPOSITORY, TAG = Repository("docker.io", "library/alpine"), Tag("3.20")
NEW_TAG = Tag("edge")
LISTING = ListingKey.tags(REPOSITORY, "")
LEAVES = [CutFiles.leave_everything, CutFiles.leave_names_only, CutFiles.leave_synced_only]


def digest_of(body: bytes) -> Digest:
    return Digest(hashlib.sha256(body).hexdigest())


def record(body: bytes) -> TagRecord:
    return TagRecord(Descriptor(digest_of(body), len(body), "application/json"), 1.0)


def listing(tag: str) -> ListingRecord:
    return ListingRecord(b'{"name": "library/alpine", "tags": ["%s"]}' % tag.encode(), 1.0)


async def finish(assembly: FilePartial, body: bytes = LARGE) -> None:
    while assembly.frontier < len(body):
        await assembly.append(body[assembly.frontier : assembly.frontier + 200 * KIB])
    await assembly.commit()


async def transfer(store: FileStore, body: bytes = LARGE) -> None:
    assembly = await store.begin(digest_of(body), len(body))
    try:
        await finish(assembly, body)
    finally:
        await assembly.aclose()


async def swarm(store: FileStore) -> None:
    """As content comes from peers: libtorrent's files become the blob's."""
    digest, hasher, layout = digest_of(SWARMED), PieceHasher(len(SWARMED)), Layout(len(SWARMED))
    hasher.update(SWARMED)
    assembly = await store.begin(digest, len(SWARMED))
    try:
        for segment in layout.segments():
            staged = await store.own_staged(digest, segment.index)
            staged.write_bytes(SWARMED[segment.offset : segment.stop])
            if assembly.frontier < segment.stop:
                meta = SegmentMeta(digest, len(SWARMED), segment.index, hasher.segment_hashes(segment.index))
                await assembly.append_segment(staged, meta)
        await assembly.commit()
    finally:
        await assembly.aclose()
    for segment in layout.segments():
        await store.unstage(digest, segment.index)


async def write(store: FileStore) -> None:
    await store.write(digest_of(SMALL), SMALL)


async def put_tag(store: FileStore) -> None:
    await store.put_tag(REPOSITORY, TAG, record(LARGE))


async def put_new_tag(store: FileStore) -> None:
    await store.put_tag(Repository("quay.io", "a/b"), NEW_TAG, record(SMALL))


async def put_listing(store: FileStore) -> None:
    await store.put_listing(LISTING, listing("new"))


async def drop(store: FileStore) -> None:
    await store.drop(digest_of(GONE))


async def stage(store: FileStore) -> None:
    await store.stage(digest_of(HELD), 0)
    await store.own_staged(digest_of(HELD), 0)
    await store.unstage(digest_of(HELD), 0)


Step = Callable[[FileStore], Awaitable[None]]

WORK: list[Step] = [transfer, write, put_tag, put_new_tag, stage]
OTHER_WORK: list[Step] = [swarm, put_listing, drop]


async def read(store: FileStore, digest: Digest) -> bytes:
    blob = await store.open(digest)
    assert blob is not None
    async with aclosing(blob.chunks(0, blob.size)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def check(root: Path, done: set[str], work: list[Step] = WORK) -> None:
    """What must hold at the next start, where the steps in `done`, some of `work`, had returned."""
    store = await FileStore.open_dir(root, StepFiles())
    try:
        assert not list((root / "scratch").iterdir())
        for digest, size in store.held():
            body = await read(store, digest)
            assert digest_of(body) == digest
            assert len(body) == size
        held = {digest for digest, _ in store.held()}
        assert digest_of(HELD) in held
        assert digest_of(LARGE) in held or "transfer" not in done
        assert digest_of(SMALL) in held or "write" not in done
        assert await store.tag(REPOSITORY, TAG) in (
            [record(LARGE)] if "put_tag" in done else [record(HELD), record(LARGE)]
        )
        new = await store.tag(Repository("quay.io", "a/b"), NEW_TAG)
        assert new in ([record(SMALL)] if "put_new_tag" in done else [None, record(SMALL)])
        kept = await store.listing(LISTING)
        assert kept in ([listing("new")] if "put_listing" in done else [listing("old"), listing("new")])
        assert digest_of(SWARMED) in held or "swarm" not in done
        whole = LARGE if work is WORK else SWARMED
        if digest_of(whole) not in held:
            await transfer(store, whole)  # what was left of it harms no other try
        assert await read(store, digest_of(whole)) == whole
        sidecars = {path.name[:64] for path in (root / "blobs").rglob("*.pieces")}
        assert sidecars <= {digest.hex for digest, _ in store.held()}
    finally:
        store.close()


@pytest.fixture(params=["one file", "a file a segment"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs as they are here, and cut in so small segments that they have several."""
    if request.param == "a file a segment":
        for module in ("io.segment_files", "model.layout"):
            monkeypatch.setattr(f"p2pd.{module}.SEGMENT", 256 * KIB)
        for module in ("io.partial", "io.scan", "io.store", "io.blob_files"):
            monkeypatch.setattr(f"p2pd.{module}.SMALL_BLOB", 300 * KIB)


@pytest.fixture
async def base(tmp_path: Path, cut: None) -> Path:
    """A store that holds HELD and GONE, a tag, a list, and the first piece and a bit of LARGE in assembly."""
    root = tmp_path / "base"
    store = await FileStore.open_dir(root, StepFiles())
    for body in (HELD, GONE):
        await transfer(store, body)
    await store.put_tag(REPOSITORY, TAG, record(HELD))
    await store.put_listing(LISTING, listing("old"))
    assembly = await store.begin(digest_of(LARGE), len(LARGE))
    await assembly.append(LARGE[: 300 * KIB])
    await assembly.aclose()
    store.close()
    return root


@pytest.mark.parametrize("cut_at", range(4))
async def test_power_cut_at_every_step(base: Path, cut_at: int) -> None:
    """At every fourth step from this one on: four tests for both cores."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as folder:
        while await cut_once(base, Path(folder) / "cut", cut_at, WORK):
            cut_at += 4
    assert cut_at > 40


@pytest.mark.parametrize("cut_at", range(2))
async def test_power_cut_at_every_step_of_what_peers_brought(base: Path, cut_at: int) -> None:
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as folder:
        while await cut_once(base, Path(folder) / "cut", cut_at, OTHER_WORK):
            cut_at += 2
    assert cut_at > 20


async def cut_once(base: Path, root: Path, cut_at: int, work: list[Step]) -> bool:
    """Run the work up to step `cut_at`, then start again in every directory that may be left."""
    shutil.copytree(base, root)
    files = CutFiles(root, cut_at)
    done: set[str] = set()
    try:
        store = await FileStore.open_dir(root, files)
        for step in work:
            await step(store)
            done.add(step.__name__)
    except PowerCut:
        pass
    for number, leave in enumerate(LEAVES):
        left = root.parent / f"left{number}"
        leave(files, left)
        await check(left, done, work)
        shutil.rmtree(left)
    files.close()
    shutil.rmtree(root)
    return len(done) < len(work)


@pytest.mark.parametrize("cut_at", range(13))
async def test_power_cut_while_the_store_is_made(tmp_path: Path, cut_at: int) -> None:
    root = tmp_path / "cut"
    root.mkdir()
    files = CutFiles(root, cut_at)
    with pytest.raises(PowerCut):
        await FileStore.open_dir(root, files)
    for number, leave in enumerate(LEAVES):
        left = tmp_path / f"left{number}"
        leave(files, left)
        store = await FileStore.open_dir(left, StepFiles())
        await transfer(store)
        assert await read(store, digest_of(LARGE)) == LARGE
        store.close()
    files.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, StoreFull), (errno.EIO, StoreError), (errno.EACCES, StoreError)],
)
@pytest.mark.parametrize("work", WORK + OTHER_WORK, ids=lambda work: work.__name__)
async def test_disk_error_at_every_step(base: Path, work: Step, code: int, kind: type[StoreError]) -> None:
    """One line of the right class, and the same call succeeds once the disk is well again."""
    store = await FileStore.open_dir(base, files := StepFiles())
    lines: list[str] = []
    fail_at = 0
    while fail_at >= 0:
        for body in (LARGE, SMALL, SWARMED):
            await store.drop(digest_of(body))
        files.steps.clear()
        files.on_step = partial(refuse, fail_at, OSError(code, "injected"))
        try:
            await work(store)
        except kind as error:
            lines.append(str(error))
        is_last = len(files.steps) <= fail_at
        files.on_step = nothing
        await work(store)
        for digest, _ in store.held():
            assert digest_of(await read(store, digest)) == digest
        fail_at = -1 if is_last else fail_at + 1
    assert lines
    assert all(line.startswith("cannot ") and "\n" not in line for line in lines)
    store.close()
    await check(base, {work.__name__})


async def test_a_segment_that_the_disk_takes_half_of_counts_that_half(tmp_path: Path) -> None:
    """A segment is taken in several runs: those done before one failed are not done again."""
    body = LARGE * (5 * 1024 * 1024 // len(LARGE) + 1)
    store = await FileStore.open_dir(tmp_path, files := StepFiles())
    assembly = await store.begin(digest_of(body), len(body))
    staged = store.staged_path(digest_of(body), 0)
    staged.write_bytes(body)
    hasher = PieceHasher(len(body))
    hasher.update(body)
    meta = SegmentMeta(digest_of(body), len(body), 0, hasher.segment_hashes(0))
    files.on_step = second_run_fails(files)
    with pytest.raises(StoreError):
        await assembly.append_segment(staged, meta)
    files.on_step = nothing
    assert 0 < assembly.frontier < len(body)
    assert assembly.hash_so_far().hexdigest() == digest_of(body[: assembly.frontier]).hex
    await assembly.append(body[assembly.frontier :])
    await assembly.commit()
    await assembly.aclose()
    assert await read(store, digest_of(body)) == body
    store.close()


def second_run_fails(files: StepFiles) -> Callable[[int, str], None]:
    """On a disk where a file can have but one name: of each run the bytes are written, and the journal."""

    def fail(_number: int, name: str) -> None:
        if name == "link":
            files.steps.clear()
            raise OSError(errno.EPERM, "no links here")
        if files.steps.count("write_at") == 3:
            raise OSError(errno.EIO, "injected")

    return fail


def refuse(at: int, error: OSError, number: int, _name: str) -> None:
    if number == at:
        raise error


def nothing(_number: int, _name: str) -> None:
    pass


async def test_cancelled_at_every_step(base: Path) -> None:
    """A transfer cancelled while any system call runs goes on from its frontier to the right bytes."""
    store = await FileStore.open_dir(base, files := StepFiles())
    cancel_at = cancelled = 0
    while cancel_at >= 0:
        files.steps.clear()
        assembly: FilePartial | None = None
        with trio.CancelScope() as scope:
            files.on_step = partial(cancel, cancel_at, scope)
            assembly = await store.begin(digest_of(LARGE), len(LARGE))
            await finish(assembly)
        is_last = len(files.steps) <= cancel_at
        files.on_step = nothing
        cancelled += scope.cancelled_caught
        assembly = assembly or await store.begin(digest_of(LARGE), len(LARGE))
        if store.size_of(digest_of(LARGE)) is None:
            await finish(assembly)
        await assembly.aclose()
        assert await read(store, digest_of(LARGE)) == LARGE
        await store.drop(digest_of(LARGE))
        cancel_at = -1 if is_last else cancel_at + 1
    assert cancelled > 5
    store.close()


def cancel(at: int, scope: trio.CancelScope, number: int, _name: str) -> None:
    if number == at:
        trio.from_thread.run_sync(scope.cancel)


async def test_cancelled_copying_leaves_nothing(base: Path) -> None:
    store = await FileStore.open_dir(base, files := StepFiles())
    for cancel_at in range(2, 4):
        files.steps.clear()
        with trio.CancelScope() as scope:
            files.on_step = partial(cancel_without_links, cancel_at, scope)
            await store.stage(digest_of(HELD), 0)
        assert scope.cancelled_caught
        assert not list((base / "scratch").iterdir())
        assert not list((base / "staging").iterdir())
    store.close()


def cancel_without_links(at: int, scope: trio.CancelScope, number: int, name: str) -> None:
    if name == "link":
        raise OSError(errno.EPERM, "no links here")
    cancel(at, scope, number, name)
