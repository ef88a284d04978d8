"""What can be configured: the node's sections, and those it shares with the seeder.

`load(path, NodeConfig)` reads a file. Every key may be left out. The whole surface:

    [node]    site, state_dir
    [mirror]  listen, default_registry
    [lan]     control, swarm_port, multicast, peers, interfaces
    [wan]     seeders, docker_config, direct
    [upstreams."<registry>"]  url, alias, ca_file
    [log]     level, format

Without any [upstreams] table the upstreams are docker.io, ghcr.io, quay.io and registry.k8s.io;
with one, exactly those that are written and no others.
"""
# ruff: noqa: RUF009 - key, section and table make dataclass fields

from __future__ import annotations

import re
from dataclasses import dataclass

from p2pd.app.kinds import address, boolean, choice, http_url, integer, list_of, registry, text
from p2pd.app.settings import Entries, key, load, parse, section, table
from p2pd.model.address import Address
from p2pd.model.upstream import UpstreamSpec

__all__ = [
    "DEFAULT_UPSTREAMS",
    "LanSection",
    "LogSection",
    "MirrorSection",
    "NodeConfig",
    "NodeSection",
    "WanSection",
    "directory",
    "load",
    "parse",
    "upstreams_table",
]

DEFAULT_UPSTREAMS = (
    UpstreamSpec("docker.io", "https://registry-1.docker.io"),
    UpstreamSpec("ghcr.io", "https://ghcr.io"),
    UpstreamSpec("quay.io", "https://quay.io"),
    UpstreamSpec("registry.k8s.io", "https://registry.k8s.io"),
)

_ALIAS = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def _site(value: object) -> str:
    name = text(value)
    if not _SITE.fullmatch(name):
        raise ValueError(
            "a site is 1 to 63 letters, digits, '.', '_' and '-', and begins with a letter or digit"
        )
    return name


def _alias(value: object) -> str:
    name = text(value)
    if name and (len(name) > 128 or not _ALIAS.fullmatch(name)):
        raise ValueError(
            "an alias is lower-case letters and digits, with single '.', '_' or '-' between them"
        )
    return name


def directory(value: object) -> str:
    """An absolute path."""
    path = text(value)
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path")
    return path


@dataclass(frozen=True, slots=True)
class NodeSection:
    """`site` names the LAN that this node belongs to; `state_dir` holds content and the node's id."""

    site: str = key(_site, "default")
    state_dir: str = key(directory, "/var/lib/p2pd")


@dataclass(frozen=True, slots=True)
class MirrorSection:
    """The registry mirror. `default_registry` is meant by clients that name none."""

    listen: Address = key(address, "127.0.0.1:7780")
    default_registry: str = key(registry, "docker.io")


@dataclass(frozen=True, slots=True)
class LanSection:
    """Other nodes of the site: found by multicast, and those in `peers` (control addresses).

    `interfaces` limits multicast to these network interfaces; empty means all.
    """

    control: Address = key(address, "0.0.0.0:7781")
    swarm_port: int = key(integer(0, 65535), 7782)
    multicast: bool = key(boolean, True)
    peers: tuple[Address, ...] = key(list_of(address), [])
    interfaces: tuple[str, ...] = key(list_of(text), [])


@dataclass(frozen=True, slots=True)
class WanSection:
    """`seeders` are asked in order; `direct` allows this node to go to origins when none answers.

    `docker_config` is a Docker config.json with credentials for that; empty means none.
    """

    seeders: tuple[str, ...] = key(list_of(http_url), [])
    docker_config: str = key(text, "")
    direct: bool = key(boolean, True)


@dataclass(frozen=True, slots=True)
class LogSection:
    """`format` "auto" is console on a terminal, else JSON lines."""

    level: str = key(choice("debug", "info", "warning", "error"), "info")
    format: str = key(choice("auto", "json", "console"), "auto")


@dataclass(frozen=True, slots=True)
class _UpstreamEntry:
    url: str = key(http_url, "https://localhost")
    alias: str = key(_alias, "")
    ca_file: str = key(text, "")


def _upstreams(entries: Entries) -> tuple[UpstreamSpec, ...]:
    specs: list[UpstreamSpec] = []
    taken: set[str] = set()
    for name, reader in entries.items():
        try:
            host = registry(name)
        except ValueError as error:
            raise reader.wrong(str(error)) from error
        entry = reader.read(_UpstreamEntry)
        if not isinstance(reader.value, dict) or "url" not in reader.value:
            raise reader.wrong(f'url is missing; write for instance url = "https://{host}"')
        for label, field in ((host, ""), (entry.alias, "alias")):
            if label and label in taken:
                raise reader.wrong(f"{label} is already the name or alias of another upstream", field)
            taken.add(label)
        specs.append(UpstreamSpec(host, entry.url, entry.ca_file or None, entry.alias or None))
    return tuple(specs)


def upstreams_table() -> tuple[UpstreamSpec, ...]:
    """The field for [upstreams."<registry>"], also for the seeder's configuration."""
    return table(_upstreams, DEFAULT_UPSTREAMS)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Configuration of one node's daemon."""

    node: NodeSection = section(NodeSection)
    mirror: MirrorSection = section(MirrorSection)
    lan: LanSection = section(LanSection)
    wan: WanSection = section(WanSection)
    upstreams: tuple[UpstreamSpec, ...] = upstreams_table()
    log: LogSection = section(LogSection)

    def warnings(self) -> list[str]:
        """What is allowed but may be a mistake, one line each, for the log at start."""
        found: list[str] = []
        if not self.mirror.listen.is_loopback:
            found.append(
                f"mirror.listen is {self.mirror.listen}: everyone who reaches it can read cached images"
            )
        if not self.wan.seeders and not self.wan.direct:
            found.append("wan.seeders is empty and wan.direct is false: only LAN peers can provide content")
        return found
