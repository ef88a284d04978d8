"""A host with a TCP port, as configuration writes it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

__all__ = ["Address"]


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """`host` is a name, an IPv4 address, or an IPv6 address without brackets; 0 <= `port` <= 65535."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
