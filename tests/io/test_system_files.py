"""Configuration files: what is there is kept, and a failure changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pd.io.programs import run_program, version_of
from p2pd.io.system_files import SystemFiles
from p2pd.model.errors import ConfigError, OurFault, StoreError


@pytest.fixture
def files(tmp_path: Path) -> SystemFiles:
    return SystemFiles(tmp_path)


def test_what_is_not_there_is_none(files: SystemFiles, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert files.read("/a/b") is files.read("/file/b") is None
    assert files.entries("/a") is files.entries("/file") is None
    assert files.entries("/") == ["file"]


def test_what_cannot_be_read_is_named(files: SystemFiles, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    with pytest.raises(ConfigError, match=f"cannot read {tmp_path}/dir: Is a directory"):
        files.read("/dir")
    (tmp_path / "large").write_bytes(bytes(1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than"):
        files.read("/large")


def test_a_new_file_can_be_read_by_all_whatever_the_umask(files: SystemFiles, tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        files.replace("/etc/x/a.toml", b"1")
    finally:
        os.umask(old)
    assert [oct((tmp_path / each).stat().st_mode & 0o777) for each in ("etc", "etc/x", "etc/x/a.toml")] == [
        "0o755",
        "0o755",
        "0o644",
    ]


def test_mode_and_link_of_an_old_file_stay(files: SystemFiles, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_bytes(b"0")
    real.chmod(0o600)
    (tmp_path / "link").symlink_to("real")
    files.replace("/link", b"1", keep=True)
    assert (tmp_path / "link").is_symlink()
    assert real.read_bytes() == b"1"
    backup = tmp_path / "real.before-p2pd"
    assert backup.read_bytes() == b"0"
    assert {real.stat().st_mode & 0o777, backup.stat().st_mode & 0o777} == {0o600}
    files.replace("/link", b"0")
    assert not backup.exists()


def test_deleting_takes_the_backup_along(files: SystemFiles, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0")
    files.replace("/a", b"1", keep=True)
    files.replace("/a", None)
    files.replace("/a", None)
    assert files.entries("/") == []


def test_failures_are_one_line_and_leave_the_file(files: SystemFiles, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0")
    (tmp_path / "a.p2pd-new").mkdir()
    with pytest.raises(StoreError, match=f"^cannot write {tmp_path}/a: Is a directory"):
        files.replace("/a", b"1")
    assert files.read("/a") == b"0"
    with pytest.raises(StoreError, match=f"^cannot remove {tmp_path}/none: No such file"):
        files.remove_dirs(["/none"])


def test_programs_that_fail_are_one_line() -> None:
    assert run_program(["echo", "a"]) == "a\n"
    with pytest.raises(OurFault, match=r"^sh -c echo b >&2; exit 3 failed: b$"):
        run_program(["sh", "-c", "echo b >&2; exit 3"])
    with pytest.raises(OurFault, match=r"^false failed: exit status 1$"):
        run_program(["false"])
    with pytest.raises(OurFault, match=r"^cannot run /no/such: No such file"):
        run_program(["/no/such"])
    with pytest.raises(OurFault, match=r"^sleep 9 did not end within 0\.05 s"):
        run_program(["sleep", "9"], timeout=0.05)


def test_versions_are_found_or_not(tmp_path: Path) -> None:
    program = tmp_path / "containerd"
    program.write_text("#!/bin/sh\necho containerd github.com/containerd/containerd/v2 v2.2.1 abc\n")
    program.chmod(0o755)
    assert version_of(str(program)) == (2, 2)
    assert version_of("true") is None
    assert version_of("/no/such") is None
