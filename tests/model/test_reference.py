"""Image references as people write them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.model.errors import InvalidReference
from p2pd.model.reference import parse_image

HEX = "0" * 64


@pytest.mark.parametrize(
    ("text", "repository", "reference"),
    [
        ("alpine", "docker.io/library/alpine", "latest"),
        ("alpine:3.20", "docker.io/library/alpine", "3.20"),
        ("me/app", "docker.io/me/app", "latest"),
        ("docker.io/library/alpine:3.20", "docker.io/library/alpine", "3.20"),
        ("localhost/app:1", "localhost/app", "1"),
        ("registry:5000/a/b:1", "registry:5000/a/b", "1"),
        ("quay.io/a/b", "quay.io/a/b", "latest"),
        (f"quay.io/a/b:1@sha256:{HEX}", "quay.io/a/b", f"sha256:{HEX}"),
        (f"alpine@sha256:{HEX}", "docker.io/library/alpine", f"sha256:{HEX}"),
    ],
)
def test_names_are_read_as_runtimes_do(text: str, repository: str, reference: str) -> None:
    found, what = parse_image(text)
    assert (str(found), str(what)) == (repository, reference)


def test_another_default_registry() -> None:
    assert str(parse_image("app", "reg.test")[0]) == "reg.test/app"
    assert str(parse_image("docker.io/app", "reg.test")[0]) == "docker.io/library/app"


@pytest.mark.parametrize(
    "text", ["", ":", "@", "a:b:c", "A", "a@sha256:0", "a@b@c", "a b", "/", "x.y/", "a/../b"]
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_image(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InvalidReference):
        parse_image(text)
