"""Which registries may be asked, and where each one really is."""

from __future__ import annotations

from dataclasses import dataclass

from p2pd.model.reference import DOCKER_HUB

__all__ = ["DEFAULT_REGISTRIES", "UpstreamSpec", "default_upstream"]

DEFAULT_REGISTRIES = (DOCKER_HUB, "ghcr.io", "quay.io", "registry.k8s.io")
"""Registries allowed when the configuration names none."""

_URLS = {DOCKER_HUB: "https://registry-1.docker.io"}


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


def default_upstream(registry: str) -> UpstreamSpec:
    """Where a registry is when nobody said: Docker Hub's real host, else https at its own name."""
    return UpstreamSpec(registry, _URLS.get(registry, f"https://{registry}"))
