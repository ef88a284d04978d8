"""Lists of tags and referrers as files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.io import listings
from p2pd.io.files import Files
from p2pd.io.listings import decode_listing, encode_listing, read_listing, write_listing
from p2pd.io.places import Places
from p2pd.model.listing import LISTING_LIMIT, ListingKey
from p2pd.model.reference import Digest, Repository
from p2pd.ports.store import ListingRecord

REPOSITORY = Repository("docker.io", "library/alpine")
KEY = ListingKey.tags(REPOSITORY, "n=2&last=a")
RECORD = ListingRecord(b'{"name":"library/alpine",\n"tags":["b"]}', 1732400000.25)
ENCODED = encode_listing(KEY, RECORD)


def places(root: Path) -> Places:
    found = Places(root)
    found.scratch.mkdir()
    return found


def test_a_record_goes_round() -> None:
    assert decode_listing(ENCODED, KEY) == RECORD


def test_a_record_about_something_else_is_refused() -> None:
    for other in (ListingKey.tags(REPOSITORY, ""), ListingKey.referrers(REPOSITORY, Digest("a" * 64))):
        assert decode_listing(ENCODED, other) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"1732400000.25", b"NaN"),
        (b"1732400000.25", b"null"),
        (b'"b"', b"7"),
        (b'"tags":[', b'"tags":{'),
        (b'"confirmed_at"', b'"at"'),
        (b'"b"', b'"' + b"b" * LISTING_LIMIT + b'"'),
        (ENCODED, b"[]\n{}"),
        (ENCODED, b"[" * 100_000),
        (ENCODED, b""),
    ],
)
def test_a_malformed_record_is_refused(old: bytes, new: bytes) -> None:
    assert old in ENCODED
    assert decode_listing(ENCODED.replace(old, new), KEY) is None


@given(st.binary())
def test_garbage_is_refused(data: bytes) -> None:
    assert decode_listing(data, KEY) is None


def test_a_corrupt_file_is_removed(tmp_path: Path) -> None:
    where, files = places(tmp_path), Files()
    write_listing(where, files, KEY, RECORD)
    assert read_listing(where, files, KEY) == (RECORD, False)
    where.listing(KEY).write_bytes(b"rot")
    assert read_listing(where, files, KEY) == (None, True)
    assert read_listing(where, files, KEY) == (None, False)


@pytest.mark.parametrize(("count", "size"), [(3, 1 << 20), (1000, 3 * len(ENCODED))])
def test_number_and_bytes_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    monkeypatch.setattr(listings, "KEPT", count)
    monkeypatch.setattr(listings, "KEPT_BYTES", size)
    where, files = places(tmp_path), Files()
    keys = [ListingKey.tags(REPOSITORY, f"n={number}&last=b") for number in range(5)]
    for number, key in enumerate(keys):
        write_listing(where, files, key, RECORD)
        os.utime(where.listing(key), (number, number))
    write_listing(where, files, KEY, RECORD)
    kept = [key for key in [*keys, KEY] if where.listing(key).exists()]
    assert kept == [keys[3], keys[4], KEY]
