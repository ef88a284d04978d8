"""What a daemon left is seen: the judgement behind every row of the fault matrix and the soak."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks.faults.leftovers import leftovers, wrong_held
from benchmarks.testbed import Process

BODY = b"layer"
HEX = hashlib.sha256(BODY).hexdigest()


def process(peak_rss: int = 1 << 20) -> Process:
    """This very process, with a peak of one's choice."""
    seen = SimpleNamespace(pid=os.getpid(), name="p2pd", usage=lambda: SimpleNamespace(peak_rss=peak_rss))
    return cast(Process, seen)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store at rest that holds one blob."""
    for place in ("scratch", "staging", "partial", f"blobs/sha256/{HEX[:2]}"):
        (tmp_path / place).mkdir(parents=True)
    blob = tmp_path / "blobs" / "sha256" / HEX[:2] / HEX
    blob.write_bytes(BODY)
    blob.with_name(f"{HEX}.pieces").write_bytes(b"derived")
    for number in range(12):  # kept for peers
        (tmp_path / "staging" / f"{number}").touch()
    (tmp_path / "partial" / f"{'0' * 64}.5").touch()  # of a blob that is not held: for the next try
    return tmp_path


def test_a_store_at_rest_has_none(store: Path) -> None:
    assert leftovers(store, process()) == []
    assert wrong_held(store) == 0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("scratch/x", "1 files in scratch/"),
        ("staging/x", "13 files in staging/"),
        (f"partial/{HEX}.5", "1 files of held blobs in partial/"),
    ],
)
def test_a_file_that_nothing_owns(store: Path, name: str, told: str) -> None:
    (store / name).touch()
    assert leftovers(store, process()) == [told]


def test_memory_and_descriptors(store: Path) -> None:
    assert leftovers(store, process(400 << 20)) == ["400 MiB of memory at the most"]
    opened = [os.open(store, os.O_RDONLY) for _ in range(300)]
    try:
        assert [line.partition(" ")[2] for line in leftovers(store, process())] == ["open file descriptors"]
    finally:
        for fd in opened:
            os.close(fd)


def test_bytes_under_the_name_of_a_digest_that_they_do_not_have(store: Path) -> None:
    (store / "blobs" / "sha256" / HEX[:2] / HEX).write_bytes(BODY[::-1])
    assert wrong_held(store) == 1
