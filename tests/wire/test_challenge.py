import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.wire.challenge import Challenge, parse_challenges

DOCKER_HUB = (
    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
    'scope="repository:library/alpine:pull"'
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            DOCKER_HUB,
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:library/alpine:pull",
                    },
                )
            ],
        ),
        ('Basic realm="x, y"', [("basic", {"realm": "x, y"})]),
        ('BEARER Realm = "a\\"b" , service=s', [("bearer", {"realm": 'a"b', "service": "s"})]),
        (
            "Bearer realm=https://a/token,service=b",
            [("bearer", {"realm": "https://a/token", "service": "b"})],
        ),
        ('Negotiate, Basic realm="r"', [("negotiate", {}), ("basic", {"realm": "r"})]),
        ('Negotiate YWJj==, Basic realm="r"', [("negotiate", {}), ("basic", {"realm": "r"})]),
        ('Basic realm="r", Bearer realm="t"', [("basic", {"realm": "r"}), ("bearer", {"realm": "t"})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ('Bearer realm="open', [("bearer", {})]),
        ("", []),
        (",,, ", []),
        ('="x"', []),
        ("Basic\x00", []),
    ],
)
def test_reads_what_registries_send(value: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges([value]) == [Challenge(scheme, params) for scheme, params in expected]


def test_several_headers_keep_their_order_and_a_huge_one_is_left_out() -> None:
    values = ['Basic realm="a"', 'Bearer realm="' + "x" * 10_000 + '"', 'Bearer realm="b"']
    assert [challenge.scheme for challenge in parse_challenges(values)] == ["basic", "bearer"]


@given(st.lists(st.text(max_size=200), max_size=4))
def test_garbage_never_raises(values: list[str]) -> None:
    parse_challenges(values)


@given(st.text(alphabet='Bearer= ",\\x\t', max_size=300))
def test_near_garbage_never_raises(value: str) -> None:
    parse_challenges([value])


TOKEN = st.text(alphabet="abcxyz019-_.", min_size=1, max_size=8)
PARAMS = st.dictionaries(TOKEN, st.text(alphabet=st.characters(codec="ascii", min_codepoint=32), max_size=20))


@given(st.lists(st.tuples(TOKEN, PARAMS.filter(bool)), min_size=1, max_size=3))
def test_reads_back_what_was_written(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    written = ", ".join(
        f"{scheme} " + ",".join(f"{name}={quoted(value)}" for name, value in params.items())
        for scheme, params in challenges
    )
    assert parse_challenges([written]) == [Challenge(scheme, params) for scheme, params in challenges]
