"""Sets of stripe numbers as integers: bit i is stripe i."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["bits_to_bytes", "bits_to_run", "bytes_to_bits", "iter_bits", "mask_of", "run_to_bits"]


def mask_of(indexes: range) -> int:
    """The set of a contiguous run of indexes."""
    return ((1 << len(indexes)) - 1) << indexes.start if len(indexes) else 0


def iter_bits(bits: int) -> Iterator[int]:
    """Members of a set, ascending."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def bits_to_bytes(bits: int, count: int) -> bytes:
    """Little-endian bit field of `count` bits, as on the wire."""
    return bits.to_bytes((count + 7) // 8, "little")


def bytes_to_bits(field: bytes, count: int) -> int:
    """Inverse of `bits_to_bytes`; bits past `count` are dropped."""
    return int.from_bytes(field, "little") & ((1 << count) - 1)


def bits_to_run(bits: int) -> tuple[int, bytes]:
    """The lowest member of a set and the bit field that begins there; (0, b"") for the empty set."""
    if not bits:
        return 0, b""
    first = (bits & -bits).bit_length() - 1
    bits >>= first
    return first, bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def run_to_bits(first: int, field: bytes) -> int:
    """Inverse of `bits_to_run`."""
    return int.from_bytes(field, "little") << first
