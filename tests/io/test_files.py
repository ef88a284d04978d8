"""The thin layer over the system calls."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from p2pd.io.files import (
    Descriptor,
    Files,
    disk_errors,
    ensure_dir,
    open_readonly,
    replace_file,
)
from p2pd.model.errors import StoreError, StoreFull


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [
        (errno.ENOSPC, StoreFull, "; free some space on that disk"),
        (errno.EDQUOT, StoreFull, "; raise the quota or free some space"),
        (errno.EROFS, StoreError, "; remount the file system read-write"),
        (errno.EACCES, StoreError, "; check the owner and mode of the state directory"),
        (errno.EIO, StoreError, "; the disk may be failing, see the kernel log"),
        (errno.EMFILE, StoreError, ""),
    ],
)
def test_disk_errors_say_what_why_and_what_next(code: int, kind: type[StoreError], hint: str) -> None:
    with pytest.raises(StoreError) as caught, disk_errors("store a thing"):
        raise OSError(code, os.strerror(code))
    assert type(caught.value) is kind
    assert str(caught.value) == f"cannot store a thing: {os.strerror(code)}{hint}"
    assert isinstance(caught.value.__cause__, OSError)


def test_reads_stop_at_the_end_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    file = open_readonly(tmp_path / "a")
    assert file.read_at(0, 10) == b"0123456789"
    assert file.read_at(7, 10) == b"789"
    assert file.read_at(10, 1) == b""


def test_short_reads_and_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pread, pwrite = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 3), offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:4], offset))
    file = Files().create(tmp_path / "a")
    Files().write_at(file, b"0123456789", 0)
    assert file.read_at(0, 10) == b"0123456789"
    assert file.read_at(1, 20) == b"123456789"


def test_failed_replacement_leaves_the_old_file_alone(tmp_path: Path) -> None:
    class Full(Files):
        def write_at(self, file: Descriptor, data: bytes | memoryview, offset: int) -> None:
            raise OSError(errno.ENOSPC, "full")

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError, match="full"):
        replace_file(Full(), tmp_path / "scratch", tmp_path / "a", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}
    replace_file(Files(), tmp_path / "scratch", tmp_path / "a", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"new"}


def test_directory_that_could_not_be_made_durable_is_tried_again(tmp_path: Path) -> None:
    class Failing(Files):
        def sync_dir(self, path: Path) -> None:
            raise OSError(errno.EIO, "bad sector")

    with pytest.raises(OSError, match="bad sector"):
        ensure_dir(Failing(), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    ensure_dir(Files(), tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_descriptor_is_closed_with_its_last_reference(tmp_path: Path) -> None:
    file = Files().create(tmp_path / "a")
    fd = file.fd
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
