"""The reference and the commented default file say what the classes say."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.app.config import NodeConfig
from p2pd.app.reference import commented_defaults, reference, toml_key, toml_value
from p2pd.app.settings import parse
from seeder.config import SeederConfig

CLASSES: list[Any] = [NodeConfig, SeederConfig]


def uncommented(text: str) -> str:
    """Every key and table of a commented file, in force; comments for people begin with a space."""
    return re.sub(r"^#(?=[^ \n])", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_commented_file_changes_nothing(cls: Any) -> None:
    text = commented_defaults(cls, "/etc/p2pd/x.toml")
    assert parse(text.encode(), cls) == cls()
    assert all(not line or line[0] in "#[" for line in text.splitlines())


@pytest.mark.parametrize("cls", CLASSES)
def test_uncommented_it_has_every_key_at_its_default(cls: Any) -> None:
    text = uncommented(commented_defaults(cls, "/etc/p2pd/x.toml"))
    assert parse(text.encode(), cls) == cls()
    written = tomllib.loads(text)
    for section in reference(cls):
        table = written[section.header]
        if section.entries is not None:
            table = table[next(iter(section.entries))]
        assert set(table) == {key.name for key in section.keys}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_key_is_explained_in_sentences(cls: Any) -> None:
    for section in reference(cls):
        assert section.meaning.endswith(".")
        for key in section.keys:
            assert re.fullmatch(r"[A-Z].*\.", key.meaning), key
            assert key.allowed
            assert "\n" not in key.meaning + key.allowed


VALUES = st.recursive(
    st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(), some, max_size=3),
    max_leaves=6,
)


@given(st.text(), VALUES)
def test_what_is_written_is_read_again(name: str, value: object) -> None:
    assert tomllib.loads(f"{toml_key(name)} = {toml_value(value)}") == {name: value}
