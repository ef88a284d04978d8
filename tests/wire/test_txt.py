"""The TXT record of discovery."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pd.model.errors import PeerProtocolError
from p2pd.wire.txt import NodeRecord, encode_txt, parse_txt

records = st.builds(
    NodeRecord,
    st.from_regex(r"[0-9a-f]{16,64}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True),
    st.integers(1, 65535),
)


def strings(*texts: str) -> bytes:
    return b"".join(bytes([len(text)]) + text.encode("latin-1") for text in texts)


@settings(deadline=None)
@given(records)
def test_there_and_back(record: NodeRecord) -> None:
    assert parse_txt(encode_txt(record)) == record


@settings(deadline=None)
@given(records, st.data())
def test_cut_inside_a_string_or_before_a_key(record: NodeRecord, data: st.DataObject) -> None:
    whole = encode_txt(record)
    with pytest.raises(PeerProtocolError):
        parse_txt(whole[: data.draw(st.integers(0, len(whole) - 1))])


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_garbage(data: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        parse_txt(data)


def test_unknown_keys_case_and_repetition() -> None:
    data = strings("V=1", "flag", "", "=x", "id=" + "a" * 16, "site=s", "swarm=9", "swarm=10", "new=é")
    assert parse_txt(data) == NodeRecord("a" * 16, "s", 9)


@pytest.mark.parametrize(
    "change",
    [
        {"v": "2"},
        {"v": "01"},
        {"id": "A" * 16},
        {"id": "a" * 15},
        {"site": ""},
        {"site": "a b"},
        {"site": "x" * 64},
        {"swarm": "0"},
        {"swarm": "65536"},
        {"swarm": "+80"},
        {"swarm": " 80"},
        {"swarm": "8_0"},
        {"swarm": "\xb2"},
        {"swarm": ""},
        {"swarm": "000080"},
    ],
)
def test_a_value_out_of_range(change: dict[str, str]) -> None:
    pairs = {"v": "1", "id": "a" * 16, "site": "s", "swarm": "80"}
    assert parse_txt(strings(*(f"{k}={v}" for k, v in pairs.items()))).swarm_port == 80
    with pytest.raises(PeerProtocolError):
        parse_txt(strings(*(f"{k}={v}" for k, v in (pairs | change).items())))


def test_too_large() -> None:
    with pytest.raises(PeerProtocolError, match="over the limit"):
        parse_txt(strings("v=1") * 400)
