"""What can be configured of the seeder. Every key may be left out; see `p2pd.app.config`."""
# ruff: noqa: RUF009 - key, section and table make dataclass fields

from __future__ import annotations

from dataclasses import dataclass

from p2pd.app.kinds import address, duration, registry, text
from p2pd.app.sections import (
    LogSection,
    MetricsSection,
    StoreSection,
    directory,
    log_section,
    metrics_section,
    socket_path,
    store_section,
    upstreams_table,
)
from p2pd.app.settings import key, section
from p2pd.model.address import Address
from p2pd.model.upstream import UpstreamSpec

__all__ = ["SeederConfig", "SeederSection"]


@dataclass(frozen=True, slots=True)
class SeederSection:
    listen: Address = key(
        address,
        "0.0.0.0:7790",
        "Where nodes and operators reach it, by plain HTTP. "
        "Put a TLS proxy before it where the WAN is not trusted.",
    )
    state_dir: str = key(
        directory, "/var/lib/p2pd-seeder", "Where content and the bookkeeping of what was served are kept."
    )
    tag_ttl: float = key(
        duration,
        "5s",
        "How long a registry's word on a tag is believed. "
        "Longer spares requests to the registry, and a moved tag is seen later.",
    )
    docker_config: str = key(
        text,
        "",
        "A Docker config.json with logins for the registries. Credential helpers are not run. "
        "Empty: no logins.",
    )
    default_registry: str = key(
        registry,
        "docker.io",
        "The registry meant by clients that name none. It has to be among the upstreams.",
    )


@dataclass(frozen=True, slots=True)
class SeederAdminSection:
    socket: str = key(
        socket_path,
        "/run/p2pd-seeder/p2pd-seeder.sock",
        "Unix socket of the admin API, which `p2pd-seeder status` and its kin ask. For root and the group "
        "p2pd-seeder. Where the directory of the default is missing the seeder runs without. "
        "Empty: no admin API.",
    )


@dataclass(frozen=True, slots=True)
class SeederConfig:
    """Configuration of the seeder."""

    seeder: SeederSection = section(SeederSection, "The seeder.")
    store: StoreSection = store_section()
    upstreams: tuple[UpstreamSpec, ...] = upstreams_table()
    admin: SeederAdminSection = section(SeederAdminSection, "The API behind the p2pd-seeder command.")
    metrics: MetricsSection = metrics_section()
    log: LogSection = log_section()
