"""Kinds of configuration values: each turns a TOML value into a typed one, or says what is wrong.

A `Kind` is called with a TOML value (str, int, float, bool, list, dict, date) and gives a value, or
raises ValueError with one phrase: what was wrong and what is allowed. Its `words` tell users of the
reference what may be written. `@kind("words")` makes one of a function.
"""
# ruff: noqa: TRY004 - a value of the wrong type is one more wrong value, told in the same way

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from p2pd.model.address import Address
from p2pd.model.errors import InvalidReference
from p2pd.model.rate import UNLIMITED, Rate, RateWindow
from p2pd.model.reference import parse_registry
from p2pd.model.stock import Portion

__all__ = [
    "Kind",
    "address",
    "boolean",
    "byte_size",
    "choice",
    "duration",
    "http_url",
    "integer",
    "kind",
    "list_of",
    "portion",
    "rate",
    "rate_window",
    "registry",
    "shown",
    "text",
]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

_SHOWN = 60
_LIST_LIMIT = 1000
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9_-]{0,62}))*\.?")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,12}) ?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([kMG])bit/s")
_BITS = {"k": 1e3, "M": 1e6, "G": 1e9}
_WINDOW = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9]) ?- ?([01][0-9]|2[0-3]):([0-5][0-9]) ?= ?(.{1,40})")
_PERCENT = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,2})?) ?%")
_BYTES: dict[str, int] = {
    "B": 1,
    **{f"{unit}B": 1000 ** (power + 1) for power, unit in enumerate("KMGT")},
    **{f"{unit}iB": 1024 ** (power + 1) for power, unit in enumerate("KMGT")},
}


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """`words` say what is allowed, as a short phrase; `read` checks and converts."""

    words: str
    read: Callable[[object], T_co]

    def __call__(self, value: object) -> T_co:
        return self.read(value)


def kind(words: str) -> Callable[[Callable[[object], T]], Kind[T]]:
    return lambda read: Kind(words, read)


def shown(value: object) -> str:
    """A value for an error line: short, and without line breaks."""
    literal = str(value).lower() if isinstance(value, bool) else ascii(value)
    return literal if len(literal) <= _SHOWN else literal[:_SHOWN] + "…"


@kind("a text")
def text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a text in quotes")
    if "\0" in value:
        raise ValueError("a text must not have a NUL character")
    return value


@kind("true or false")
def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is neither true nor false")
    return value


def integer(low: int, high: int) -> Kind[int]:
    @kind(f"a whole number from {low} to {high}")
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{shown(value)} is not a whole number from {low} to {high}")
        return value

    return read


def choice(*allowed: str) -> Kind[str]:
    @kind(f"one of {', '.join(allowed)}")
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"{shown(value)} is not one of {', '.join(allowed)}")
        return value

    return read


def list_of(item: Kind[T]) -> Kind[tuple[T, ...]]:
    @kind(f"a list; each item {item.words}")
    def read(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{shown(value)} is not a list in square brackets")
        if len(value) > _LIST_LIMIT:
            raise ValueError(f"the list has more than {_LIST_LIMIT} items")
        return tuple(item(each) for each in value)

    return read


@kind("host:port")
def address(value: object) -> Address:
    """`host:port`, `1.2.3.4:port` or `[ipv6]:port`."""
    wrong = f'{shown(value)} is not an address like "127.0.0.1:7780" or "[::1]:7780"'
    if not isinstance(value, str):
        raise ValueError(wrong)
    host, colon, port = value.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError(wrong)
    if int(port) > 65535:
        raise ValueError(f"port {port} is over 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ip(host, 6):
            raise ValueError(wrong)
    elif not _HOST_NAME.fullmatch(host) or (re.fullmatch(r"[0-9.]+", host) and not _is_ip(host, 4)):
        raise ValueError(wrong)
    return Address(host, int(port))


@kind("an http:// or https:// URL")
def http_url(value: object) -> str:
    """`http://…` or `https://…` without user, query or fragment; a slash at its end is taken off."""
    wrong = f'{shown(value)} is not a URL like "https://registry.example:5000"'
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(wrong)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(wrong) from error
    host = parts.hostname or ""
    if (
        parts.scheme not in ("http", "https")
        or port == 0
        or not (_HOST_NAME.fullmatch(host) or _is_ip(host, 6))
    ):
        raise ValueError(wrong)
    if "@" in parts.netloc:
        raise ValueError("a URL must not carry a user or password; put those in docker_config")
    if "?" in value or "#" in value:
        raise ValueError(f"{shown(value)} has a query or fragment, which is not allowed here")
    return value.rstrip("/")


@kind("a registry's host, with its port if any")
def registry(value: object) -> str:
    """A registry as image names have it; Docker Hub's other names become docker.io."""
    try:
        return parse_registry(text(value))
    except InvalidReference as error:
        raise ValueError(str(error)) from error


@kind('a duration: "500ms", "30s", "10m", "2h", "7d"')
def duration(value: object) -> float:
    """Seconds, from a text like "500ms", "30s", "10m", "2h", "7d"."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{shown(value)} is not a duration like "30s", "10m", "2h" or "7d"')
    return float(match[1]) * _SECONDS[match[2]]


@kind('a size in bytes: 4096, "500MB", "10GiB"')
def byte_size(value: object) -> int:
    """Bytes, from a text like "500MB" or "10GiB", or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{shown(value)} is not a size like "500MB" or "10GiB"')
    return int(match[1]) * _BYTES[match[2]]


@kind('a size in bytes, or a share of the disk: "20GiB", "10%"')
def portion(value: object) -> Portion:
    """Bytes as `byte_size`, or percent below 100 of the file system."""
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value)):
        return Portion(percent=float(match[1]))
    try:
        return Portion(byte_size(value))
    except ValueError as error:
        raise ValueError(f'{shown(value)} is neither a size like "20GiB" nor a share like "10%"') from error


def _is_ip(host: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(host).version == version and "%" not in host
    except ValueError:
        return False


@kind('a rate like "20 Mbit/s", or "unlimited"')
def rate(value: object) -> Rate:
    """Bytes a second."""
    if value == "unlimited":
        return UNLIMITED
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) == 0:
        raise ValueError(f'{shown(value)} is not a rate like "500 kbit/s", "20 Mbit/s" or "unlimited"')
    return Rate(float(match[1]) * _BITS[match[2]] / 8)


@kind('a time of day and a rate, like "22:00-06:00 = unlimited"')
def rate_window(value: object) -> RateWindow:
    match = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{shown(value)} is not like "22:00-06:00 = unlimited" or "08:00-18:00 = 5 Mbit/s"')
    start, stop = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    return RateWindow(start, stop, rate(match[5]))
