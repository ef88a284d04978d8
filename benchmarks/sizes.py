"""Sizes and rates as people write and read them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

__all__ = ["argument", "parse_bytes", "parse_rate", "readable_bytes", "readable_rate"]

T = TypeVar("T")

_MEASURES = {"K": 1, "M": 2, "G": 3}


def parse_bytes(text: str) -> int:
    """`160M` is 160 MiB; raises ValueError."""
    return _parse(text, 1024)


def parse_rate(text: str) -> int:
    """`100M` is 100 Mbit/s; raises ValueError."""
    return _parse(text, 1000)


def readable_bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def readable_rate(bit_s: float) -> str:
    return f"{bit_s / 1e9:g} Gbit/s" if bit_s >= 1e9 else f"{bit_s / 1e6:g} Mbit/s"


def argument(parse: Callable[[str], T], example: str) -> Callable[[str], T]:
    """`parse` as a `type=` of argparse: what it refuses is answered in one line, with an example."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}; say for instance {example}") from error

    return parsed


def _parse(text: str, base: int) -> int:
    power = _MEASURES.get(text[-1:].upper(), 0)
    value = float(text[:-1] if power else text) * base**power
    if not 1 <= value < float("inf"):
        raise ValueError(f"{text!r} is not a number above zero")
    return int(value)
