"""Kinds of configuration values."""

from __future__ import annotations

import pytest

from p2pd.app.kinds import (
    address,
    boolean,
    byte_size,
    duration,
    http_url,
    integer,
    list_of,
    rate,
    rate_window,
    text,
)
from p2pd.model.address import Address
from p2pd.model.rate import UNLIMITED, Rate, RateWindow


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30.0),
        ("10m", 600.0),
        ("2h", 7200.0),
        ("7d", 604800.0),
        ("1.5h", 5400.0),
        ("0s", 0.0),
    ],
)
def test_durations(value: str, seconds: float) -> None:
    assert duration(value) == seconds


@pytest.mark.parametrize(
    "value", ["", "10", "s", "-1s", "1 week", "1e3s", "1s1s", 30, None, "9" * 50 + "s", "\u0661s"]
)
def test_wrong_durations(value: object) -> None:
    with pytest.raises(ValueError, match='is not a duration like "30s"'):
        duration(value)


@pytest.mark.parametrize(
    ("value", "size"),
    [("0B", 0), ("500MB", 500_000_000), ("10GiB", 10 << 30), ("1 TiB", 1 << 40), (4096, 4096)],
)
def test_sizes(value: object, size: int) -> None:
    assert byte_size(value) == size


@pytest.mark.parametrize("value", ["", "10", "10G", "-1B", "1.5GiB", True, -1, 1 << 63, 1.0, "9" * 50 + "B"])
def test_wrong_sizes(value: object) -> None:
    with pytest.raises(ValueError, match="is not a size like"):
        byte_size(value)


@pytest.mark.parametrize(
    "value", ["127.0.0.1:0", "[::]:65535", "localhost:7780", "node_1.lan:1", "0.0.0.0:80", "a.:1"]
)
def test_addresses_go_round(value: str) -> None:
    assert str(address(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a",
        ":1",
        "a:",
        "a:b",
        "a:-1",
        "a:65536",
        "::1:80",
        "[a]:1",
        "[::1%eth0]:1",
        "1.2.3:1",
        "1.2.3.256:1",
        "a b:1",
        "a:\u0661",
        "[127.0.0.1]:1",
        "a\n:1",
        "http://a:1",
        80,
        None,
    ],
)
def test_wrong_addresses(value: object) -> None:
    with pytest.raises(ValueError, match=r"is not an address|is over 65535"):
        address(value)


def test_loopback() -> None:
    assert all(Address(host, 1).is_loopback for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    assert not any(Address(host, 1).is_loopback for host in ("0.0.0.0", "::", "10.0.0.1", "example.com"))


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("https://a/", "https://a"),
        ("http://a:5000/x/", "http://a:5000/x"),
        ("https://[::1]:1", "https://[::1]:1"),
    ],
)
def test_urls(value: str, url: str) -> None:
    assert http_url(value) == url


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a",
        "ftp://a",
        "http://",
        "http:///x",
        "http://a:x",
        "http://a:99999",
        "http://a:0",
        "http://a b",
        "http://é",
        "http://a?x=1",
        "http://a#x",
        "http://a?",
        "http://u@a",
        "http://[::1",
        "http://[zz]",
        "http://a\n",
        "http://-a",
        1,
    ],
)
def test_wrong_urls(value: object) -> None:
    with pytest.raises(ValueError, match=r"URL|query"):
        http_url(value)


def test_plain_kinds() -> None:
    assert text("a") == "a"
    assert boolean(False) is False
    assert integer(1, 3)(3) == 3
    assert list_of(integer(1, 3))([1, 2]) == (1, 2)
    for kind, value in [(text, 1), (text, "\0"), (boolean, 0), (integer(1, 3), 4), (integer(0, 1), True)]:
        with pytest.raises(ValueError, match=r"is not|neither|NUL"):
            kind(value)
    with pytest.raises(ValueError, match="more than 1000"):
        list_of(text)(["a"] * 1001)


def test_rates() -> None:
    assert rate("8 kbit/s") == Rate(1000)
    assert rate("2.5Gbit/s") == 312.5e6
    assert rate("unlimited") == UNLIMITED
    assert rate_window("22:00-06:00 = unlimited") == RateWindow(1320, 360, UNLIMITED)
    assert rate_window("08:30 - 09:00=8 kbit/s") == RateWindow(510, 540, Rate(1000))


@pytest.mark.parametrize("value", ["", "5", 5, "0 Mbit/s", "5 MB/s", "-1 Mbit/s", "1e3 Mbit/s", "unlimited "])
def test_wrong_rates(value: object) -> None:
    with pytest.raises(ValueError, match="is not a rate like"):
        rate(value)


@pytest.mark.parametrize("value", ["", "22:00 = unlimited", "24:00-06:00 = unlimited", "22:00-06:00", 7, []])
def test_wrong_windows(value: object) -> None:
    with pytest.raises(ValueError, match="is not like"):
        rate_window(value)
