"""Piece checksums: however the bytes come, and however the sidecar is harmed."""

from __future__ import annotations

import hashlib
import itertools
import random

import xxhash
from hypothesis import given
from hypothesis import strategies as st

from p2pd.io.pieces import ENTRY_BYTES, PieceHasher, PieceTable, entry_of
from p2pd.model.layout import Layout
from p2pd.model.reference import Digest
from tests.support.memory_store import meta_of

KIB = 1024
BODY = random.Random(1).randbytes(700 * KIB + 13)


def table_of(body: bytes) -> PieceTable:
    hasher = PieceHasher(len(body))
    hasher.update(body)
    return hasher.table()


@given(st.lists(st.integers(0, len(BODY)), max_size=6))
def test_hashes_do_not_depend_on_how_bytes_come(cuts: list[int]) -> None:
    hasher = PieceHasher(len(BODY))
    edges = [0, *sorted(cuts), len(BODY)]
    for start, stop in itertools.pairwise(edges):
        assert hasher.position == start
        hasher.update(BODY[start:stop])
    assert hasher.table() == table_of(BODY)
    assert hasher.sha256 == hashlib.sha256(BODY).hexdigest()


def test_table_is_what_the_swarm_and_the_reader_need() -> None:
    table = table_of(BODY)
    digest = Digest(hashlib.sha256(BODY).hexdigest())
    assert table.segment_meta(digest, 0) == meta_of(digest, BODY, len(BODY), 0)
    for stripe in map(Layout(len(BODY)).stripe, range(Layout(len(BODY)).stripe_count)):
        piece = BODY[stripe.start : stripe.stop]
        assert table.matches(stripe.index, piece)
        assert not table.matches(stripe.index, piece[:-1])
        assert not table.matches(stripe.index, b"")
    assert not table.matches(99, b"")


def test_known_hash_is_taken_for_the_piece_it_ends() -> None:
    hasher = PieceHasher(len(BODY))
    hasher.update(BODY[:1000])
    hasher.update(BODY[1000 : 256 * KIB], sha1s=b"\7" * 20)
    hasher.update(BODY[256 * KIB :])
    assert hasher.entries(1) == b"".join(entry_of(BODY[at : at + 256 * KIB]) for at in (256 * KIB, 512 * KIB))
    assert hasher.entries(0)[:ENTRY_BYTES] == b"\7" * 20 + xxhash.xxh3_64_digest(BODY[: 256 * KIB])


def test_sidecar_goes_round() -> None:
    for body in (b"", b"x", BODY):
        encoded = table_of(body).encode()
        assert len(encoded) == PieceTable.encoded_size(len(body))
        assert PieceTable.decode(encoded) == table_of(body)


@given(st.integers(0, len(table_of(BODY).encode()) - 1), st.integers(1, 255))
def test_one_wrong_byte_is_found(at: int, change: int) -> None:
    data = bytearray(table_of(BODY).encode())
    data[at] ^= change
    assert PieceTable.decode(bytes(data)) is None
    assert PieceTable.decode(bytes(data[:at])) is None


@given(st.binary(max_size=200))
def test_garbage_is_no_sidecar(data: bytes) -> None:
    assert PieceTable.decode(data) is None
    sealed = data + xxhash.xxh3_64_digest(data)
    assert PieceTable.decode(sealed) is None
