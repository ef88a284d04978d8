"""Discovery by multicast DNS: announce this node, learn the addresses of the others.

zeroconf works in threads of its own. What it finds crosses into the event loop by a call that
waits for the loop, so a flood of announcements waits in zeroconf and not in ours. Where multicast
does not work the node goes on with its static peers, and a change of addresses is a new try.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

import ifaddr
import structlog
import trio
import zeroconf

from p2pd.model.errors import PeerProtocolError
from p2pd.wire.txt import NodeRecord, encode_txt, parse_txt

__all__ = ["SERVICE_TYPE", "Advertisement", "LocalAddress", "choose_addresses", "local_addresses", "run_mdns"]

log = structlog.get_logger()

SERVICE_TYPE = "_p2pd._tcp.local."

_POLL = 4.0
"""Seconds between two looks at this machine's addresses (0.2 ms of CPU each)."""

_CLOSE_WITHIN = 2.0
_RESOLVE_MS = 1000
_ADDRESSES_PER_NODE = 8

_VIRTUAL = ("lo", "docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "cilium", "kube-", "tunl")
"""Interfaces, by prefix, that carry no other node of the site unless the configuration names them."""

_ZEROCONF_ERRORS = (zeroconf.Error, OSError, RuntimeError, ValueError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Advertisement:
    """What this node tells the site about itself."""

    node_id: str
    site: str
    control_port: int
    swarm_port: int


@dataclass(frozen=True, slots=True, order=True)
class LocalAddress:
    """An IPv4 address of this machine. The interface's index tells a re-made interface from the old one."""

    interface: str
    index: int
    ip: str


def choose_addresses(found: Iterable[LocalAddress], interfaces: tuple[str, ...]) -> tuple[LocalAddress, ...]:
    """Those to announce: of the named interfaces, or of all that are neither loopback nor virtual."""

    def is_usable(address: LocalAddress) -> bool:
        if interfaces:
            return address.interface in interfaces
        return not address.interface.startswith(_VIRTUAL) and not IPv4Address(address.ip).is_loopback

    return tuple(sorted(address for address in found if is_usable(address)))


async def run_mdns(
    advertisement: Advertisement,
    on_found: Callable[[str, int], None],
    *,
    interfaces: tuple[str, ...] = (),
    poll: float = _POLL,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Announce and listen until cancelled; ready after the first try, whether it worked or not.

    `on_found(host, control port)` is called in the event loop, for each address of each other node
    of the same site, again when a node announces itself anew.
    """
    session: _Session | None = None
    current: tuple[LocalAddress, ...] = ()
    complained: str | None = None
    try:
        while True:
            error: str | None = None
            try:
                addresses = choose_addresses(local_addresses(), interfaces)
            except OSError as failure:
                addresses, error = current, f"cannot list interfaces: {failure}"
            if session is not None and addresses != current:
                log.info("addresses changed, announcing again", addresses=[a.ip for a in addresses])
                await _close(session)
                session = None
            if session is None and error is None:
                session, error = await _open(advertisement, addresses, on_found)
                current = addresses
            if error is not None and error != complained:
                log.warning("no discovery by multicast; static peers still work", error=error)
            complained = error
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(poll)
    finally:
        if session is not None:
            await _close(session)


def local_addresses() -> list[LocalAddress]:
    """The IPv4 addresses of this machine; raises OSError."""
    return [
        LocalAddress(adapter.nice_name, adapter.index or 0, ip.ip)
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if isinstance(ip.ip, str)
    ]


async def _open(
    advertisement: Advertisement, addresses: tuple[LocalAddress, ...], on_found: Callable[[str, int], None]
) -> tuple[_Session | None, str | None]:
    if not addresses:
        return None, "no network interface has a usable IPv4 address"
    session = _Session(advertisement, addresses, on_found, trio.lowlevel.current_trio_token())
    try:
        await trio.to_thread.run_sync(session.open)
    except _ZEROCONF_ERRORS as failure:
        await _close(session)
        return None, str(failure) or type(failure).__name__
    except BaseException:
        await _close(session)
        raise
    log.info("announced by multicast", addresses=[address.ip for address in addresses])
    return session, None


async def _close(session: _Session) -> None:
    with trio.move_on_after(_CLOSE_WITHIN, shield=True):
        await trio.to_thread.run_sync(session.close, abandon_on_cancel=True)


class _Session:
    """zeroconf on one set of addresses. `open`, `close` and the callback run in threads."""

    def __init__(
        self,
        advertisement: Advertisement,
        addresses: tuple[LocalAddress, ...],
        on_found: Callable[[str, int], None],
        token: trio.lowlevel.TrioToken,
    ) -> None:
        self._advertisement = advertisement
        self._ips = [address.ip for address in addresses]
        self._on_found = on_found
        self._token = token
        self._zeroconf: zeroconf.Zeroconf | None = None
        self._closed = False

    def open(self) -> None:
        me = self._advertisement
        self._zeroconf = zeroconf.Zeroconf(interfaces=list(self._ips), ip_version=zeroconf.IPVersion.V4Only)
        zeroconf.ServiceBrowser(self._zeroconf, SERVICE_TYPE, handlers=[self._changed])
        info = zeroconf.ServiceInfo(
            SERVICE_TYPE,
            f"{me.node_id[:48]}.{SERVICE_TYPE}",
            port=me.control_port,
            addresses=[socket.inet_aton(ip) for ip in self._ips],
            properties=encode_txt(NodeRecord(me.node_id, me.site, me.swarm_port)),
            server=f"p2pd-{me.node_id[:48]}.local.",
        )
        # A cloned node must not be silenced by its twin: the name only has to differ.
        self._zeroconf.register_service(info, allow_name_change=True)

    def close(self) -> None:
        self._closed = True
        if self._zeroconf is not None:
            self._zeroconf.close()

    def _changed(
        self,
        zeroconf: zeroconf.Zeroconf,
        service_type: str,
        name: str,
        state_change: zeroconf.ServiceStateChange,
    ) -> None:
        # A goodbye says nothing that the peer's closed connection did not say.
        if self._closed or state_change.name == "Removed":
            return
        for host, port in self._resolve(zeroconf, service_type, name):
            try:
                trio.from_thread.run_sync(self._on_found, host, port, trio_token=self._token)
            except trio.RunFinishedError:
                return

    def _resolve(self, zc: zeroconf.Zeroconf, service_type: str, name: str) -> list[tuple[str, int]]:
        """Control addresses of a node of our site; none for ourselves, others, and what is malformed."""
        me = self._advertisement
        try:
            info = zc.get_service_info(service_type, name, _RESOLVE_MS)
            if info is None or not info.port:
                return []
            record = parse_txt(info.text)
        except (*_ZEROCONF_ERRORS, PeerProtocolError) as error:
            log.debug("announcement left out", name=name, error=str(error))
            return []
        if record.site != me.site:
            return []
        hosts = info.parsed_addresses(zeroconf.IPVersion.V4Only)[:_ADDRESSES_PER_NODE]
        if record.node_id == me.node_id:
            # At an address of ours it is ourselves; at another one it is a clone, to be met.
            hosts = [host for host in hosts if host not in self._ips]
        return [(host, info.port) for host in hosts if _can_be_dialled(host)]


def _can_be_dialled(host: str) -> bool:
    address = IPv4Address(host)
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)
