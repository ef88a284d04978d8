"""What can be configured of the seeder. Every key may be left out:

[seeder]  listen, state_dir, tag_ttl, docker_config, default_registry
[upstreams."<registry>"]  url, alias, ca_file
[log]     level, format
"""
# ruff: noqa: RUF009 - key, section and table make dataclass fields

from __future__ import annotations

from dataclasses import dataclass

from p2pd.app.config import LogSection, directory, upstreams_table
from p2pd.app.kinds import address, duration, registry, text
from p2pd.app.settings import key, section
from p2pd.model.address import Address
from p2pd.model.upstream import UpstreamSpec

__all__ = ["SeederConfig", "SeederSection"]


@dataclass(frozen=True, slots=True)
class SeederSection:
    """`state_dir` holds content and bookkeeping.

    `tag_ttl` is how long the origin's answer about a tag is believed. `docker_config` is a Docker
    config.json with logins for the origins; empty means none. `default_registry` is meant by clients
    that name none.
    """

    listen: Address = key(address, "0.0.0.0:7790")
    state_dir: str = key(directory, "/var/lib/p2pd-seeder")
    tag_ttl: float = key(duration, "5s")
    docker_config: str = key(text, "")
    default_registry: str = key(registry, "docker.io")


@dataclass(frozen=True, slots=True)
class SeederConfig:
    """Configuration of the seeder."""

    seeder: SeederSection = section(SeederSection)
    upstreams: tuple[UpstreamSpec, ...] = upstreams_table()
    log: LogSection = section(LogSection)
