"""What can be configured of a node; `p2pd.app.sections` has what it shares with the seeder.

`load(path, NodeConfig)` reads a file. Every key may be left out. docs/configuration.md is made from
the meanings written here; they are for operators.

Without any [upstreams] table the upstreams are docker.io, ghcr.io, quay.io and registry.k8s.io;
with one, exactly those that are written and no others.
"""
# ruff: noqa: RUF009 - key, section and table make dataclass fields

from __future__ import annotations

import re
from dataclasses import dataclass

from p2pd.app.kinds import (
    address,
    boolean,
    http_url,
    integer,
    kind,
    list_of,
    rate,
    rate_window,
    registry,
    text,
)
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
from p2pd.app.settings import key, load, parse, section
from p2pd.model.address import Address
from p2pd.model.rate import Rate, RatePlan, RateWindow
from p2pd.model.upstream import UpstreamSpec

__all__ = [
    "AdminSection",
    "LanSection",
    "MirrorSection",
    "NodeConfig",
    "NodeSection",
    "RuntimeSection",
    "SITE",
    "WanSection",
    "load",
    "parse",
]

SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@kind("1 to 63 letters, digits, '.', '_' and '-'")
def _site(value: object) -> str:
    name = text(value)
    if not SITE.fullmatch(name):
        raise ValueError(
            "a site is 1 to 63 letters, digits, '.', '_' and '-', and begins with a letter or digit"
        )
    return name


@kind("an absolute path, or empty")
def _optional_directory(value: object) -> str:
    return directory(value) if value else text(value)


@dataclass(frozen=True, slots=True)
class NodeSection:
    site: str = key(
        _site,
        "default",
        "Name of the LAN that this node belongs to. Nodes of one LAN with the same site share content; "
        "give two groups on one LAN different names to keep them apart.",
    )
    state_dir: str = key(
        directory,
        "/var/lib/p2pd",
        "Where content and this node's id are kept. `[store]` says how much that may be. "
        "Do not clone it with a disk image: two nodes with one id take each other for themselves.",
    )


@dataclass(frozen=True, slots=True)
class MirrorSection:
    listen: Address = key(
        address,
        "127.0.0.1:7780",
        "Where this node's own container runtime finds the mirror. Whoever reaches it can read cached "
        "images, so keep it on loopback. After a change run `p2pd runtime install` again.",
    )
    default_registry: str = key(
        registry,
        "docker.io",
        "The registry meant by clients that name none, as Docker Engine does. "
        "It has to be among the upstreams.",
    )


def _rate_windows() -> tuple[RateWindow, ...]:
    return key(
        list_of(rate_window),
        [],
        'Other limits at times of the (local) day, for instance ["22:00-06:00 = unlimited"]. '
        "Within one it stands for both limits above; of several that overlap the first counts.",
    )


class _Limited:
    """A link's limits: this node's, and the whole site's."""

    __slots__ = ()
    rate_limit: Rate
    site_rate_limit: Rate
    rate_windows: tuple[RateWindow, ...]

    @property
    def node_plan(self) -> RatePlan:
        return RatePlan(self.rate_limit, self.rate_windows)

    @property
    def site_plan(self) -> RatePlan:
        return RatePlan(self.site_rate_limit, self.rate_windows)


@dataclass(frozen=True, slots=True)
class LanSection(_Limited):
    control: Address = key(
        address,
        "0.0.0.0:7781",
        "Where other nodes of the site talk to this one. Its host is also where BitTorrent listens: "
        "write the LAN's own address to keep both off other networks.",
    )
    swarm_port: int = key(
        integer(0, 65535), 7782, "TCP port of BitTorrent, on the host of `control`. 0 takes any free port."
    )
    multicast: bool = key(
        boolean,
        True,
        "Find the other nodes by multicast DNS (IPv4, 5353/udp). "
        "Turn it off where multicast is not allowed, and write `peers`.",
    )
    peers: tuple[Address, ...] = key(
        list_of(address),
        [],
        'Control addresses of nodes that multicast does not reach, for instance ["10.1.0.7:7781"]. '
        "It is enough that one of two nodes knows the other.",
    )
    interfaces: tuple[str, ...] = key(
        list_of(text),
        [],
        'Use multicast on these network interfaces alone, for instance ["eth0"]. '
        "Empty: on all but loopback and virtual ones.",
    )
    rate_limit: Rate = key(
        rate,
        "unlimited",
        "The most that this node sends to its peers, and the most that it takes from them.",
    )
    site_rate_limit: Rate = key(
        rate,
        "unlimited",
        "The most that all nodes of the site exchange over the LAN, shared out among those that do. "
        "Write the same on each.",
    )
    rate_windows: tuple[RateWindow, ...] = _rate_windows()


@dataclass(frozen=True, slots=True)
class WanSection(_Limited):
    seeders: tuple[str, ...] = key(
        list_of(http_url),
        [],
        'Seeders, asked in this order, for instance ["http://seeder.example:7790"]. '
        "Empty: one node of the site pulls each blob from its registry for the others.",
    )
    direct: bool = key(
        boolean,
        True,
        "May this node pull from the registries when no seeder answers? Turn it off where only "
        "the seeder may be reached.",
    )
    docker_config: str = key(
        text,
        "",
        "A Docker config.json with logins for the registries, used with `direct`. "
        "Credential helpers are not run. Empty: no logins.",
    )
    rate_limit: Rate = key(
        rate,
        "unlimited",
        "The most of the WAN that this node takes.",
    )
    site_rate_limit: Rate = key(
        rate,
        "unlimited",
        "The most of the WAN that all nodes of the site take, shared out among those that use it at the "
        "moment. Write the same on each.",
    )
    rate_windows: tuple[RateWindow, ...] = _rate_windows()


@dataclass(frozen=True, slots=True)
class AdminSection:
    socket: str = key(
        socket_path,
        "/run/p2pd/p2pd.sock",
        "Unix socket of the admin API, which `p2pd status` and its kin ask. For root and the group p2pd: "
        "who may use it can pull, verify and delete content. Where the directory of the default is missing "
        "the daemon runs without. Empty: no admin API.",
    )


@dataclass(frozen=True, slots=True)
class RuntimeSection:
    containerd_root: str = key(
        _optional_directory,
        "",
        "The root directory of this node's containerd, usually /var/lib/containerd. What it holds already is "
        "given to other nodes from its own files, which are only read; p2pd keeps no second copy of that. "
        "The user p2pd needs leave to read there. Empty: off.",
    )


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Configuration of one node's daemon."""

    node: NodeSection = section(NodeSection, "This node.")
    mirror: MirrorSection = section(MirrorSection, "The registry mirror for this node's container runtime.")
    lan: LanSection = section(LanSection, "The other nodes of the site.")
    wan: WanSection = section(WanSection, "Where content comes from that no node of the site has.")
    store: StoreSection = store_section()
    runtime: RuntimeSection = section(RuntimeSection, "The container runtime of this node.")
    upstreams: tuple[UpstreamSpec, ...] = upstreams_table()
    admin: AdminSection = section(AdminSection, "The API behind the p2pd command.")
    metrics: MetricsSection = metrics_section()
    log: LogSection = log_section()

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
