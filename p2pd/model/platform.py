"""What an image is made for: operating system, architecture, variant.

Source: OCI image-spec 1.1 (image-index.md), whose values are Go's GOOS and GOARCH.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from p2pd.model.errors import InvalidReference

__all__ = ["Platform"]

_WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,30}")
_OF_MACHINE = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv6l": "arm/v6",
    "armv7l": "arm/v7",
    "armv8l": "arm/v7",
    "i386": "386",
    "i686": "386",
    "loongarch64": "loong64",
}


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """`variant` is empty where none is written."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `os/architecture[/variant]`; raises InvalidReference."""
        words = text.split("/")
        if len(words) not in {2, 3} or not all(_WORD.fullmatch(word) for word in words):
            shown = ascii(text[:60])
            raise InvalidReference(f"{shown} is not a platform like linux/amd64 or linux/arm/v7")
        return cls(*words)

    @classmethod
    def of_machine(cls, machine: str) -> Platform:
        """The Linux platform of a machine by its `uname -m`."""
        return cls.parse(f"linux/{_OF_MACHINE.get(machine, machine)}")

    def __str__(self) -> str:
        return "/".join(word for word in (self.os, self.architecture, self.variant) if word)
