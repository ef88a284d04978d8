"""The site's and the centre's network: addresses, links, shaping, counters.

    n0 n1 … cache ---- lan (bridge) ---- router ==== WAN ==== centre (bridge) ---- origin, seeder
                                                                  origin ---- seeder (direct link)

Each name is a network namespace. Nodes reach the origin only through the WAN; the seeder reaches it
through a link of its own, so that a slow origin and a slow WAN are shaped apart.

Shaping is tbf, the kernels at hand having no netem. A bucket of 10 ms keeps the rate exact, a queue
of 60 ms keeps latency under load near that of a real uplink. On the WAN packets are at most an MTU
long (gso_max_segs 1): its counters then hold the headers a real line would carry.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["CACHE_IP", "ORIGIN_IP", "SEEDER_IP", "LinkBytes", "SiteSpec", "interface_bytes", "node_ip"]

CACHE_IP = "10.20.0.2"
ORIGIN_IP = "10.30.0.10"
SEEDER_IP = "10.30.0.20"

_ROUTER_IP = "10.20.0.1"
_SITE_NET = "10.20.0.0/16"
_CENTRE_IP = "10.30.0.1"
_CENTRE_NET = "10.30.0.0/24"
_WAN_SITE_IP, _WAN_CENTRE_IP = "10.40.0.2", "10.40.0.1"
_DIRECT_ORIGIN_IP, _DIRECT_SEEDER_IP = "10.50.0.1", "10.50.0.2"

_NODES_PER_BLOCK = 200
_MAX_NODES = 200 * _NODES_PER_BLOCK
_BUCKET_S = 0.010
_QUEUE_S = 0.060
_MIN_BUCKET = 4 * 1514
_MIN_QUEUE = 20 * 1514


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """What to build. Rates are bits a second of Ethernet frames, each way.

    `origin_bit_s` shapes the link between origin and seeder (None: as fast as the machine).
    `disk_bytes` is what the disks of all hosts may come to hold: where memory allows they are on
    tmpfs, because a node of a real site shares its disk with nobody. `on_disk` keeps them off it: its
    huge pages would fill the holes of sparse files.
    """

    nodes: int = 2
    wan_bit_s: int = 100_000_000
    lan_bit_s: int = 1_000_000_000
    origin_bit_s: int | None = None
    disk_bytes: int = 4 << 30
    on_disk: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= _MAX_NODES:
            raise ValueError(f"nodes must be 1 to {_MAX_NODES}, not {self.nodes}")
        if min(self.wan_bit_s, self.lan_bit_s, self.origin_bit_s or self.wan_bit_s) < 64_000:
            raise ValueError("a rate under 64 kbit/s cannot be shaped")


@dataclass(frozen=True, slots=True)
class LinkBytes:
    """Bytes an interface has received (down) and sent (up)."""

    down: int
    up: int

    def __sub__(self, earlier: LinkBytes) -> LinkBytes:
        return LinkBytes(self.down - earlier.down, self.up - earlier.up)


def node_ip(index: int) -> str:
    """Address of node `index` on the site's LAN."""
    block, number = divmod(index, _NODES_PER_BLOCK)
    return f"10.20.{1 + block}.{1 + number}"


def interface_bytes(device: str) -> LinkBytes:
    """The kernel's counters of a device in the calling thread's network namespace."""
    # Not /sys/class/net: that shows the namespace in which /sys was mounted.
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        name, colon, numbers = line.partition(":")
        if colon and name.strip() == device:
            fields = numbers.split()
            return LinkBytes(int(fields[0]), int(fields[8]))
    raise KeyError(device)


def shaper(device: str, bit_s: int, verb: str = "add") -> str:
    """One `tc -batch` line that limits what leaves through `device`."""
    bucket = max(_MIN_BUCKET, int(bit_s / 8 * _BUCKET_S))
    queue = max(_MIN_QUEUE, int(bit_s / 8 * _QUEUE_S))
    return f"qdisc {verb} dev {device} root tbf rate {bit_s}bit burst {bucket} limit {bucket + queue}"


def build_script(spec: SiteSpec) -> str:
    """Shell script, for the outer namespaces, that builds everything."""
    site_hosts = [f"n{index}" for index in range(spec.nodes)] + ["cache"]
    names = [*site_hosts, "lan", "router", "centre", "origin", "seeder"]
    ports = [("lan", f"p-{host}", host, "eth0") for host in site_hosts]
    ports += [
        ("lan", "uplink", "router", "site"),
        ("router", "wan", "centre", "wan"),
        ("centre", "p-origin", "origin", "eth0"),
        ("centre", "p-seeder", "seeder", "eth0"),
        ("origin", "direct", "seeder", "direct"),
    ]
    script = ["set -e", *_batch("ip", None, [f"netns add {name}" for name in names])]
    links = [f"link add {a} netns {x} type veth peer name {b} netns {y}" for x, a, y, b in ports]
    script += _batch("ip", None, links)
    script += _bridge("lan", "lan0", [f"p-{host}" for host in site_hosts] + ["uplink"])
    script += _bridge("centre", "centre0", ["p-origin", "p-seeder"])
    addresses = [node_ip(index) for index in range(spec.nodes)] + [CACHE_IP]
    for host, address in zip(site_hosts, addresses, strict=True):
        # The default route carries multicast too, so that mDNS finds its way out.
        script += _batch("ip", host, _up("eth0", f"{address}/16", _ROUTER_IP))
        script += _batch("tc", host, [shaper("eth0", spec.lan_bit_s)])
    script += _batch("tc", "lan", [shaper(f"p-{host}", spec.lan_bit_s) for host in site_hosts])
    script += _routers(spec)
    script += _centre_hosts(spec)
    for name in names:
        # Without this a later run would start with what TCP learnt in an earlier one.
        script.append(f"ip netns exec {name} sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_no_metrics_save'")
    return "\n".join(script) + "\n"


def restore_script() -> str:
    """Bring the WAN back after `link set wan down` at the centre, which also drops its routes."""
    return "\n".join(_batch("ip", "centre", _wan_at_centre()))


def _routers(spec: SiteSpec) -> list[str]:
    site = [
        "link set lo up",
        f"addr add {_ROUTER_IP}/16 dev site",
        "link set site up",
        *_up("wan", f"{_WAN_SITE_IP}/30", _WAN_CENTRE_IP),
        "link set wan gso_max_segs 1",
    ]
    centre = [
        "link set lo up",
        f"addr add {_CENTRE_IP}/24 dev centre0",
        f"addr add {_WAN_CENTRE_IP}/30 dev wan",
        *_wan_at_centre(),
        "link set wan gso_max_segs 1",
    ]
    lines = [*_batch("ip", "router", site), *_batch("ip", "centre", centre)]
    for name in ("router", "centre"):
        lines += _batch("tc", name, [shaper("wan", spec.wan_bit_s)])
        lines.append(f"ip netns exec {name} sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'")
    return lines


def _wan_at_centre() -> list[str]:
    return ["link set wan up", f"route replace {_SITE_NET} via {_WAN_SITE_IP}"]


def _centre_hosts(spec: SiteSpec) -> list[str]:
    origin = [
        *_up("eth0", f"{ORIGIN_IP}/24", _CENTRE_IP),
        f"addr add {_DIRECT_ORIGIN_IP}/30 dev direct",
        "link set direct up",
    ]
    seeder = [
        *_up("eth0", f"{SEEDER_IP}/24", _CENTRE_IP),
        f"addr add {_DIRECT_SEEDER_IP}/30 dev direct",
        "link set direct up",
        f"route add {ORIGIN_IP}/32 via {_DIRECT_ORIGIN_IP} src {_DIRECT_SEEDER_IP}",
    ]
    lines = [*_batch("ip", "origin", origin), *_batch("ip", "seeder", seeder)]
    if spec.origin_bit_s is not None:
        for name in ("origin", "seeder"):
            lines += _batch("tc", name, [shaper("direct", spec.origin_bit_s)])
    return lines


def _up(device: str, address: str, gateway: str) -> list[str]:
    return [
        "link set lo up",
        f"addr add {address} dev {device}",
        f"link set {device} up",
        f"route add default via {gateway}",
    ]


def _bridge(namespace: str, bridge: str, members: list[str]) -> list[str]:
    # Snooping would drop mDNS on ports whose membership reports nobody queries for.
    lines = [f"link add {bridge} type bridge mcast_snooping 0", f"link set {bridge} up"]
    lines += [f"link set {member} master {bridge} up" for member in members]
    # Handing every bridged frame to iptables costs CPU that is the nodes' in this testbed.
    quiet = "for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 >$f; done"
    return [*_batch("ip", namespace, lines), f"ip netns exec {namespace} sh -c '{quiet}'"]


def _batch(tool: str, namespace: str | None, lines: list[str]) -> list[str]:
    within = [] if namespace is None else ["-n", namespace]
    return [" ".join([tool, *within, "-batch", "-", "<<'EOF'"]), *lines, "EOF"]
