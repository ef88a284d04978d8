"""Which manifest of a multi-platform image a machine runs."""

from __future__ import annotations

from collections.abc import Sequence

from p2pd.model.content import Descriptor
from p2pd.model.platform import Platform

__all__ = ["choose"]

_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


def choose(offered: Sequence[tuple[Descriptor, Platform | None]], wanted: Platform) -> Descriptor | None:
    """The best that `wanted` can run: its own variant, else the next lower one; the first of equals.

    None where nothing fits. A variant that is not written means the architecture's usual one.
    """
    best: tuple[int, Descriptor] | None = None
    usable = _usable(wanted)
    for descriptor, platform in offered:
        if platform is None or (platform.os, platform.architecture) != (wanted.os, wanted.architecture):
            continue
        variant = _variant(platform)
        if variant in usable and (best is None or usable.index(variant) < best[0]):
            best = (usable.index(variant), descriptor)
    return None if best is None else best[1]


def _variant(platform: Platform) -> str:
    return platform.variant or _DEFAULT_VARIANT.get(platform.architecture, "")


def _usable(wanted: Platform) -> list[str]:
    """Variants that run on `wanted`, best first: what a v7 runs, it runs as v6 and v5 too."""
    variant = _variant(wanted)
    if wanted.architecture in _DEFAULT_VARIANT and variant[:1] == "v" and variant[1:].isdigit():
        return [f"v{number}" for number in range(min(int(variant[1:]), 99), 0, -1)]
    return [variant]
