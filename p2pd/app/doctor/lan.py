"""The site: does multicast work, who answers, and can they be reached?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import trio

from p2pd.app.config import NodeConfig
from p2pd.app.doctor.finding import Finding, fail, ok, warn
from p2pd.io.mdns import choose_addresses, local_addresses
from p2pd.io.probes import Heard, Node, connect_error, try_multicast
from p2pd.model.address import Address

__all__ = ["check_lan", "judge_multicast", "judge_peers"]


async def check_lan(
    config: NodeConfig, live_peers: int | None, is_present: Callable[[str], bool]
) -> list[Finding]:
    """Multicast and peers; `live_peers` is what the daemon says, None where none runs."""
    heard, nodes = [], set[Node]()
    if config.lan.multicast:
        try:
            addresses = choose_addresses(local_addresses(), config.lan.interfaces)
        except OSError as error:
            return [fail("multicast", f"cannot list the network interfaces: {error}", "ip -brief address")]
        heard = await try_multicast(addresses)
        mine = {address.ip for address in addresses}
        nodes = {node for each in heard for node in each.nodes if node.host not in mine}
    others = {Address(node.host, node.port) for node in nodes if node.site == config.node.site}
    errors: dict[Address, str | None] = {}

    async def dial(address: Address) -> None:
        errors[address] = await connect_error(address.host, address.port)

    async with trio.open_nursery() as nursery:
        for address in {*others, *config.lan.peers}:
            nursery.start_soon(dial, address)
    found = []
    if config.lan.multicast:
        silent = 0 if nodes else live_peers or sum(errors[peer] is None for peer in {*config.lan.peers})
        found = judge_multicast(heard, config.lan.interfaces, is_present, silent)
    return found + judge_peers(config, nodes, errors, live_peers)


def judge_multicast(
    heard: Iterable[Heard],
    interfaces: tuple[str, ...],
    is_present: Callable[[str], bool],
    silent: int = 0,
) -> list[Finding]:
    """`silent`: how many nodes live, as is known otherwise, where not a single one answered."""
    found = []
    for each in heard:
        name = f"{each.address.interface} ({each.address.ip})"
        if each.error is not None:
            mend = f"ip link set {each.address.interface} up multicast on"
            found.append(fail("multicast", f"{name} cannot send: {each.error}", mend))
        elif not each.itself:
            says = f"{name} sends, but does not even hear itself: a firewall drops 5353/udp"
            found.append(fail("multicast", says, _open_port(5353, "udp", is_present)))
        elif silent:
            says = (
                f"{name} sends, but no other node answers, though {silent} can be reached: something between "
                "them drops multicast (IGMP snooping?); nodes find each other by lan.peers alone"
            )
            found.append(warn("multicast", says, f"tcpdump -ni {each.address.interface} udp port 5353"))
        else:
            # Our own question comes back from the kernel; what a switch drops shows in the answers alone.
            others = len({node.node_id for node in each.nodes if node.host != each.address.ip})
            found.append(ok("multicast", f"{name} sends and receives; other nodes that answered: {others}"))
    if not found:
        wanted = f"none of {', '.join(interfaces)}" if interfaces else "no physical interface"
        says = f"{wanted} has an IPv4 address: nodes cannot find each other"
        return [fail("multicast", says, "ip -brief address")]
    return found


def _open_port(port: int, protocol: str, is_present: Callable[[str], bool]) -> str:
    if is_present("firewall-cmd"):
        return f"firewall-cmd --permanent --add-port={port}/{protocol} && firewall-cmd --reload"
    if is_present("ufw"):
        return f"ufw allow {port}/{protocol}"
    return f"nft insert rule inet filter input {protocol} dport {port} accept"


def judge_peers(
    config: NodeConfig, nodes: set[Node], errors: Mapping[Address, str | None], live_peers: int | None
) -> list[Finding]:
    """`nodes` answered by multicast; `errors` are of TCP connections to them and to the static peers."""
    found = []
    foreign = sorted({node.site for node in nodes} - {config.node.site})
    reachable = sorted(str(address) for address, error in errors.items() if error is None)
    static = set(config.lan.peers)
    for address, error in sorted(errors.items()):
        if error is not None and address in static:
            says = f"{address} of lan.peers cannot be reached: {error}"
            found.append(warn("peers", says, f"ping -c 3 {address.host}; systemctl status p2pd  # there"))
        elif error is not None:
            says = f"{address} announces itself but cannot be reached: {error}; a firewall there?"
            found.append(fail("peers", says, f"ss -ltn 'sport = :{address.port}'  # there"))
    if live_peers is not None and live_peers == 0 and reachable:
        says = f"{', '.join(reachable)} can be reached, but the daemon has no live peer"
        found.append(fail("peers", says, "journalctl -u p2pd --no-pager | grep 'peer left out'"))
    elif live_peers:
        found.append(ok("peers", f"{live_peers} live"))
    elif reachable:
        found.append(ok("peers", f"can be reached: {', '.join(reachable)}"))
    elif not config.lan.multicast and not static:
        says = "lan.multicast is off and lan.peers is empty: this node is alone"
        found.append(warn("peers", says, "p2pd config defaults | grep -B3 '#peers'"))
    else:
        note = f"; other sites on this LAN: {', '.join(foreign)}" if foreign else ""
        says = f"no other node of site {config.node.site} is found{note}"
        found.append(warn("peers", says, "systemctl status p2pd  # on another node"))
    return found
