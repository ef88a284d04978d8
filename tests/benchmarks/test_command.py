"""The calls of `python -m benchmarks` and `make` in the documents are ones that these take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.__main__ import make_parser

ROOT = Path(__file__).parents[2]
TEXT = "\n".join(path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
MAKEFILE = (ROOT / "Makefile").read_text()
CALLS = sorted(set(re.findall(r"(?m)(?:^ {4}|`)(?:\.venv/bin/)?python -m benchmarks ([a-z][^`\n]*)", TEXT)))
MADE = sorted(set(re.findall(r"(?:`|\*\*)make ([a-z-]+)((?: [A-Z]+=\"[^\"]*\")?)`", TEXT)))


def test_there_are_calls() -> None:
    assert len(CALLS) >= 8
    assert len(MADE) >= 8


@pytest.mark.parametrize("call", CALLS)
def test_a_call_of_the_benchmarks_is_taken(call: str) -> None:
    make_parser().parse_args([word for word in shlex.split(call) if word != "--help"])


@pytest.mark.parametrize(("target", "options"), MADE)
def test_a_target_of_make_is_there_and_takes_its_options(target: str, options: str) -> None:
    rule = re.search(rf"(?m)^(?:[a-z-]+ )*{target}(?: [a-z-]+)*:(?!.*:=).*\n((?:\t.*\n)*)", MAKEFILE)
    assert rule is not None
    if options:
        assert f"$({options.split('=')[0].strip()})" in rule[1]
