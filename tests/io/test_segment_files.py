"""Blobs kept as a file for each segment; segments are 1,000 bytes here."""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pd.io.files import Files
from p2pd.io.segment_files import (
    AssemblyFiles,
    SegmentedFile,
    link_file,
    make_own,
    open_blob,
    remove_blob,
    segment_path,
)
from tests.support.power import StepFiles

BODY = random.Random(3).randbytes(3500)


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pd.io.segment_files.SEGMENT", 1000)
    monkeypatch.setattr("p2pd.model.layout.SEGMENT", 1000)


def scratches(folder: Path) -> Callable[[], Path]:
    numbers = itertools.count()
    return lambda: folder / f"scratch{next(numbers)}"


def begin(folder: Path, size: int = len(BODY), files: Files | None = None) -> AssemblyFiles:
    return AssemblyFiles(folder / "blob", size, files or Files(), scratches(folder))


def stage(folder: Path, index: int, body: bytes = BODY) -> Path:
    path = folder / f"staged.{index}"
    path.write_bytes(body[index * 1000 : (index + 1) * 1000])
    return path


def without_links(_number: int, name: str) -> None:
    if name == "link":
        raise OSError(errno.EPERM, "a file has one name here")


@pytest.mark.parametrize("step", [1, 700, 1000, 2300, 3500])
def test_bytes_are_read_as_they_were_written(tmp_path: Path, step: int) -> None:
    blob = begin(tmp_path)
    for offset in range(0, len(BODY), step):
        blob.write_at(BODY[offset : offset + step], offset)
        assert blob.read_at(0, 5000) == BODY[: offset + step]
    assert [(tmp_path / "blob" / str(index)).stat().st_size for index in range(4)] == [1000, 1000, 1000, 500]
    for start, length in ((0, 1), (999, 2), (999, 1002), (2000, 1500), (3499, 9), (3500, 1)):
        assert blob.read_at(start, length) == BODY[start : start + length]


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_blob_of_one_segment_is_one_file(tmp_path: Path, size: int) -> None:
    blob = begin(tmp_path, size)
    blob.write_at(BODY[:size], 0)
    blob.sync()
    assert (tmp_path / "blob").read_bytes() == BODY[:size] == blob.read_at(0, 2000)
    assert blob.segment_path(0) == segment_path(tmp_path / "blob", size, 0) == tmp_path / "blob"


def test_a_staged_segment_is_taken_by_a_second_name(tmp_path: Path) -> None:
    blob = begin(tmp_path, files=(files := StepFiles()))
    for index in range(4):
        staged = stage(tmp_path, index)
        assert blob.adopt(index, staged, index * 1000)
        assert blob.adopt(index, staged, index * 1000 + 300), "the rest of one that is the blob's already"
        assert blob.segment_path(index).samefile(staged)
    assert blob.read_at(0, 5000) == BODY
    assert "write_at" not in files.steps
    blob.sync()
    assert files.steps[-5:] == ["sync"] * 4 + ["sync_dir"]


@pytest.mark.parametrize("size", [1000, 3500])
def test_what_was_written_of_a_segment_is_kept_when_it_is_staged_too(tmp_path: Path, size: int) -> None:
    blob = begin(tmp_path, size)
    blob.write_at(BODY[:300], 0)
    assert not blob.adopt(0, stage(tmp_path, 0), 300)
    blob.write_at(BODY[300:1000], 300)
    assert blob.read_at(0, 1000) == BODY[:1000]
    assert not blob.segment_path(0).samefile(tmp_path / "staged.0")


@pytest.mark.parametrize("size", [1000, 3500])
def test_a_file_system_without_links_has_segments_written(tmp_path: Path, size: int) -> None:
    blob = begin(tmp_path, size, StepFiles(without_links))
    assert not blob.adopt(0, stage(tmp_path, 0), 0)
    blob.write_at(BODY[:1000], 0)
    assert blob.read_at(0, 1000) == blob.segment_path(0).read_bytes() == BODY[:1000]


def test_what_was_moved_or_deleted_meanwhile_is_not_linked(tmp_path: Path) -> None:
    assert not link_file(Files(), tmp_path / "none", tmp_path / "other")


def test_an_error_that_is_not_about_links_is_told(tmp_path: Path) -> None:
    def full(_number: int, name: str) -> None:
        if name == "link":
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        link_file(StepFiles(full), stage(tmp_path, 0), tmp_path / "other")


@pytest.mark.parametrize("size", [1000, 3500])
def test_a_stream_that_goes_on_leaves_the_swarms_file_alone(tmp_path: Path, size: int) -> None:
    """Its bytes may be wrong, and peers must not be given them."""
    blob, staged = begin(tmp_path, size), stage(tmp_path, 0)
    assert blob.adopt(0, staged, 0)
    assert blob.read_at(0, 300) == BODY[:300]
    blob.write_at(b"!" * 700, 300)
    assert staged.read_bytes() == BODY[:1000]
    assert blob.read_at(0, 1000) == blob.segment_path(0).read_bytes() == BODY[:300] + b"!" * 700


@pytest.mark.parametrize("size", [1000, 3500])
def test_what_is_cut_is_not_the_swarms(tmp_path: Path, size: int) -> None:
    blob, staged = begin(tmp_path, size), stage(tmp_path, 0)
    assert blob.adopt(0, staged, 0)
    blob.cut(300)
    assert staged.read_bytes() == BODY[:1000]
    staged.unlink()
    blob.cut(300)
    assert blob.segment_path(0).stat().st_size == 300


@pytest.mark.parametrize(
    ("length", "left"), [(0, []), (1, ["0"]), (1000, ["0"]), (1500, ["0", "1"]), (3000, ["0", "1", "2"])]
)
def test_segments_behind_a_cut_are_deleted(tmp_path: Path, length: int, left: list[str]) -> None:
    blob = begin(tmp_path)
    blob.write_at(BODY, 0)
    (tmp_path / "blob" / "of another").touch()
    blob.cut(length)
    assert sorted(os.listdir(tmp_path / "blob")) == left
    assert blob.read_at(0, 5000) == BODY[:length]
    blob.write_at(BODY[length:], length)
    assert blob.read_at(0, 5000) == BODY


def test_an_assembly_that_an_earlier_release_kept_in_one_file_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(BODY[:1200])
    assert begin(tmp_path).read_at(0, 5000) == b""


def test_readers_go_on_when_it_is_moved_and_deleted(tmp_path: Path) -> None:
    blob = begin(tmp_path)
    blob.write_at(BODY, 0)
    assert isinstance(blob.reader, SegmentedFile)
    (tmp_path / "blob").rename(tmp_path / "held")
    assert blob.read_at(0, 5000) == BODY
    held = open_blob(tmp_path / "held", len(BODY))
    assert isinstance(held, SegmentedFile)
    (tmp_path / "held" / "of another").touch()
    held.hold_open()
    remove_blob(Files(), tmp_path / "held", tmp_path / "scratch")
    assert not list(tmp_path.iterdir())
    assert held.read_at(0, 5000) == BODY


def test_few_of_many_segments_are_open_at_a_time(tmp_path: Path) -> None:
    body = BODY * 12
    blob = begin(tmp_path, len(body))
    blob.write_at(body, 0)
    before = len(os.listdir("/proc/self/fd"))
    for offset in range(0, len(body), 100):
        assert blob.read_at(offset, 100) == body[offset : offset + 100]
    assert len(os.listdir("/proc/self/fd")) <= before + 8


@pytest.mark.parametrize("harm", ["gone", "cut", "segment gone", "segment cut"])
def test_a_blob_that_is_not_whole_is_not_opened(tmp_path: Path, harm: str) -> None:
    path, size = tmp_path / "blob", len(BODY) if harm.startswith("segment") else 1000
    begin(tmp_path, size).write_at(BODY[:size], 0)
    assert open_blob(path, size) is not None
    held = open_blob(path, size)
    assert held is not None
    harmed = path / "1" if path.is_dir() else path
    if harm.endswith("gone"):
        harmed.unlink()
        assert held.read_at(1500, 100) == b""
    else:
        os.truncate(harmed, 10)
    assert open_blob(path, size) is None


def test_a_blob_is_deleted_whatever_it_is(tmp_path: Path) -> None:
    for size in (1000, 3500):
        begin(tmp_path, size).write_at(BODY[:size], 0)
        for _ in range(2):  # it may be gone
            remove_blob(Files(), tmp_path / "blob", tmp_path / "scratch")
            assert not list(tmp_path.iterdir())


def test_a_file_is_copied_only_where_it_has_another_name(tmp_path: Path) -> None:
    path, other, scratch = tmp_path / "a", tmp_path / "b", tmp_path / "scratch"
    make_own(Files(), path, scratch)
    path.write_bytes(BODY)
    make_own(files := StepFiles(), path, scratch)
    assert files.steps == []
    other.hardlink_to(path)
    make_own(Files(), path, scratch)
    assert path.read_bytes() == other.read_bytes() == BODY
    assert not path.samefile(other)
    assert not scratch.exists()


def test_a_copy_that_fails_changes_nothing(tmp_path: Path) -> None:
    def full(_number: int, name: str) -> None:
        if name == "write_at":
            raise OSError(errno.ENOSPC, "full")

    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(BODY)
    other.hardlink_to(path)
    with pytest.raises(OSError, match="full"):
        make_own(StepFiles(full), path, tmp_path / "scratch")
    assert path.samefile(other)
    assert not (tmp_path / "scratch").exists()
