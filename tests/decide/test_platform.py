"""Which manifest a machine runs."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.decide.platform import choose
from p2pd.model.content import Descriptor
from p2pd.model.errors import InvalidReference
from p2pd.model.platform import Platform
from p2pd.model.reference import Digest


def offer(*texts: str) -> list[tuple[Descriptor, Platform | None]]:
    return [
        (Descriptor(Digest(f"{number:064x}"), number, "x/y"), Platform.parse(text) if text else None)
        for number, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["", "unknown/unknown", "linux/amd64"], 2),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
        ("linux/amd64", ["linux/amd64/v2", "linux/amd64"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v4", "linux/amd64/v2"], 2),
        ("linux/arm64", ["linux/arm64/v8"], 0),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], 1),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm"], None),
        ("linux/arm", ["linux/arm/v7"], 0),
        ("linux/amd64", ["windows/amd64"], None),
        ("linux/riscv64", ["linux/riscv64"], 0),
        ("linux/mips/x", ["linux/mips"], None),
        ("linux/amd64", [], None),
    ],
)
def test_the_best_that_runs(wanted: str, offered: list[str], chosen: int | None) -> None:
    found = choose(offer(*offered), Platform.parse(wanted))
    assert (None if found is None else found.size) == chosen


@pytest.mark.parametrize(
    ("machine", "platform"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("i686", "linux/386"),
        ("riscv64", "linux/riscv64"),
        ("s390x", "linux/s390x"),
    ],
)
def test_the_platform_of_a_machine(machine: str, platform: str) -> None:
    assert str(Platform.of_machine(machine)) == platform


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InvalidReference):
        assert str(Platform.parse(text)) == text


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64/v3", ["linux/amd64/v1", "linux/amd64/v2", "linux/amd64/v3"], 2),
        ("linux/amd64/v3", ["linux/amd64/v2", "linux/amd64/v2"], 0),
        ("linux/amd64", ["linux/amd64/v1"], 0),
        ("linux/arm/v10", ["linux/arm/v1", "linux/arm/v9"], 1),
        ("linux/arm64/v9", ["linux/arm64"], 0),
        ("linux/arm/v", ["linux/arm/v", "linux/arm"], 0),
        ("linux/arm/v7hf", ["linux/arm", "linux/arm/v7hf"], 1),
        ("linux/arm/x7", ["linux/arm", "linux/arm/x7"], 1),
        ("linux/mips/v2", ["linux/mips/v1", "linux/mips/v2"], 1),
        ("linux/mips/v2", ["linux/mips/v1"], None),
        ("windows/amd64", ["linux/amd64", "windows/amd64"], 1),
        ("linux/amd64/v99999", ["linux/amd64/v99"], 0),
    ],
)
def test_variants_below_the_own_one_run_where_variants_are_numbered(
    wanted: str, offered: list[str], chosen: int | None
) -> None:
    found = choose(offer(*offered), Platform.parse(wanted))
    assert (None if found is None else found.size) == chosen
