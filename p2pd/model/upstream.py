"""Which registries may be asked, and where each one really is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UpstreamSpec"]


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """One allowed registry.

    `registry` is the name users write; `url` is scheme, host and optional port; `ca_file` is a PEM
    file trusted besides the system's CAs; `alias` is another first path component for it.
    """

    registry: str
    url: str
    ca_file: str | None = None
    alias: str | None = None
