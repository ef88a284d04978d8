"""Tag records as files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.io.files import Files
from p2pd.io.places import Places
from p2pd.io.tags import decode_record, encode_record, read_all, write_record
from p2pd.model.content import Descriptor
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.store import TagRecord

REPOSITORY, TAG = Repository("docker.io", "library/alpine"), Tag("3.20")
RECORD = TagRecord(
    Descriptor(Digest("ab" * 32), 1853, "application/vnd.oci.image.index.v1+json"), 1732400000.25
)
ENCODED = encode_record(REPOSITORY, TAG, RECORD)


def test_record_goes_round() -> None:
    assert decode_record(ENCODED, REPOSITORY, TAG) == RECORD


def test_record_of_another_tag_is_refused() -> None:
    assert decode_record(ENCODED, REPOSITORY, Tag("3.21")) is None
    assert decode_record(ENCODED, Repository("docker.io", "library/busybox"), TAG) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"1853", b"-1"),
        (b"1853", b"true"),
        (b"1853", b"1.5"),
        (b"1732400000.25", b"NaN"),
        (b"1732400000.25", b"null"),
        (b"1732400000.25", b"1e999"),
        (b"sha256:ab", b"sha256:zz"),
        (b"sha256:ab", b"md5:ab"),
        (b'"digest"', b'"tsegid"'),
        (b'"application/vnd.oci.image.index.v1+json"', b"[]"),
        (ENCODED, b"[" * 100_000),
        (ENCODED, b"[]"),
        (ENCODED, b""),
        (ENCODED, b"\xff\xfe"),
        (ENCODED, b"9" * 5000),
    ],
)
def test_malformed_record_is_refused(old: bytes, new: bytes) -> None:
    assert old in ENCODED
    assert decode_record(ENCODED.replace(old, new), REPOSITORY, TAG) is None


@given(st.binary())
def test_garbage_is_refused(data: bytes) -> None:
    assert decode_record(data, REPOSITORY, TAG) is None


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.text("./a", min_size=1),
    st.text("./a", min_size=1),
)
def test_every_name_stays_three_levels_below(registry: str, name: str, tag: str) -> None:
    places = Places(Path("/store"))
    path = places.tag(Repository(registry, name), Tag(tag))
    parts = path.relative_to(places.tags).parts
    assert len(parts) == 3
    assert not {".", ".."} & set(parts)
    assert all(len(part.encode()) <= 255 for part in parts)


@pytest.mark.parametrize("data", [ENCODED[:-5], b"{}", b"[]", b"\xff", ENCODED.replace(b"3.20", b"/"), b""])
def test_a_list_leaves_out_what_is_wrong(data: bytes, tmp_path: Path) -> None:
    places = Places(tmp_path)
    assert read_all(places) == []
    write_record(places, _files(places), REPOSITORY, TAG, RECORD)
    places.tag(REPOSITORY, Tag("broken")).write_bytes(data)
    places.tag(REPOSITORY, Tag("other")).write_bytes(ENCODED)  # right, but in another's place
    assert read_all(places) == [(REPOSITORY, TAG, RECORD)]


def _files(places: Places) -> Files:
    places.scratch.mkdir()
    return Files()
