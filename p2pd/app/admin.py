"""The node's admin API: what the `p2pd` command asks of a running daemon."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from p2pd import __version__
from p2pd.app.admin_gc import collect_endpoint
from p2pd.app.admin_http import Endpoint, Tell
from p2pd.app.config import NodeConfig
from p2pd.app.effective import plain_config
from p2pd.app.images import blobs_of, images_of
from p2pd.app.keeper import Keeper
from p2pd.app.ledger import Ledger
from p2pd.app.node_content import NodeContent
from p2pd.app.recent import RECENT
from p2pd.app.site import Site
from p2pd.app.transfer import Transfer
from p2pd.app.transfers import Transfers
from p2pd.app.upstreams import upstreams_of
from p2pd.app.verify import verify
from p2pd.app.warm import warm_image
from p2pd.io.peers import PeerNetwork
from p2pd.model import admin
from p2pd.model.errors import P2pdError, UserMistake
from p2pd.model.messages import Ping
from p2pd.model.platform import Platform
from p2pd.model.reference import Digest, Repository, Tag, parse_image

__all__ = ["NodeAdmin"]

PING = 1.0
_PINGS_AT_ONCE = 32
_RATE_WINDOW = 0.5
"""Seconds between two looks at a transfer that make a rate; a closer one repeats the last."""


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    have: int
    rate: float


class NodeAdmin:
    """Answers from the daemon's parts; `mirror` is where runtimes reach it, as host:port."""

    def __init__(
        self,
        config: NodeConfig,
        site: Site,
        network: PeerNetwork,
        transfers: Transfers,
        content: NodeContent,
        ledger: Ledger,
        keeper: Keeper,
        mirror: str,
        swarm_port: int,
    ) -> None:
        self._config, self._site, self._network = config, site, network
        self._transfers, self._content, self._ledger = transfers, content, ledger
        self._keeper = keeper
        self._mirror, self._swarm_port = mirror, swarm_port
        self._started_at = time.time()
        self._looks: dict[Digest, _Look] = {}

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint("GET", "/v1/status", "The node at a glance.", admin.Status, self._status),
            Endpoint("GET", "/v1/peers", "The other nodes of the site.", admin.Peers, self._peers),
            Endpoint("GET", "/v1/images", "Tags that were asked for.", admin.Images, self._images),
            Endpoint("GET", "/v1/blobs", "Held content.", admin.Blobs, self._blobs),
            Endpoint("GET", "/v1/transfers", "Blobs on their way.", admin.Transfers, self._running),
            Endpoint("GET", "/v1/config", "The configuration in use.", dict, self._effective),
            Endpoint(
                "POST",
                "/v1/pull",
                "Bring an image to this node. Blobs that have begun go on when the client leaves.",
                admin.PullEvent,
                self._pull,
                admin.PullOrder,
                is_stream=True,
            ),
            Endpoint(
                "POST",
                "/v1/verify",
                "Read held blobs and hash them again; drop those that are corrupt.",
                admin.VerifyEvent,
                self._verify,
                admin.VerifyOrder,
                is_stream=True,
            ),
            collect_endpoint(self._keeper),
        )

    async def _status(self) -> admin.Status:
        today, total = self._ledger.today(), self._ledger.total()
        held = [size for _, size in self._site.store.held()]
        return admin.Status(
            version=__version__,
            node=self._site.me,
            site=self._config.node.site,
            started_at=self._started_at,
            mirror=self._mirror,
            control=f"{self._config.lan.control.host}:{self._network.control_port}",
            swarm_port=self._swarm_port,
            sources=self._site.wan.sources(),
            peers=len(self._network.live()),
            blobs=len(held),
            blob_bytes=sum(held),
            transfers=self._told_transfers(),
            since_start=self._site.metrics.traffic(),
            today=today,
            total=total,
            counted_since=self._ledger.since,
            wan_spared_today=today.given - today.wan,
            wan_spared_total=total.given - total.wan,
            notices=RECENT.notices(),
        )

    async def _peers(self) -> admin.Peers:
        live = self._network.live()
        times: dict[str, float] = {}
        slots = trio.CapacityLimiter(_PINGS_AT_ONCE)

        async def ping(node: str) -> None:
            async with slots:
                began = trio.current_time()
                try:
                    await self._network.request(node, Ping(), PING)
                except P2pdError:
                    return
                times[node] = trio.current_time() - began

        async with trio.open_nursery() as nursery:
            for peer in live:
                nursery.start_soon(ping, peer.node_id)
        found = [
            admin.Peer(
                peer.node_id,
                peer.host,
                self._network.control_port_of(peer.node_id),
                live=True,
                rtt=times.get(peer.node_id),
                reason=None,
            )
            for peer in live
        ]
        lost = [
            admin.Peer(None, host, port, live=False, rtt=None, reason=reason)
            for host, port, reason in self._network.unreached()
        ]
        return admin.Peers(found + lost)

    async def _images(self) -> admin.Images:
        return admin.Images(await images_of(self._site.store))

    async def _blobs(self) -> admin.Blobs:
        return admin.Blobs(await blobs_of(self._site.store))

    async def _running(self) -> admin.Transfers:
        return admin.Transfers(self._told_transfers())

    async def _effective(self) -> dict[str, object]:
        return plain_config(self._config)

    async def _pull(self, order: admin.PullOrder, tell: Tell) -> None:
        repository, reference = self._wanted(order.reference)
        await warm_image(self._content, repository, reference, _platform(order.platform), tell)

    async def _verify(self, order: admin.VerifyOrder, tell: Tell) -> None:
        await verify(self._site.store, [Digest.parse(digest) for digest in order.digests], tell)

    def _wanted(self, text: str) -> tuple[Repository, Digest | Tag]:
        upstreams = upstreams_of(self._config.upstreams, self._config.mirror.default_registry)
        repository, reference = parse_image(text, self._config.mirror.default_registry)
        registry = upstreams.find(repository.registry)
        if registry is None:
            raise UserMistake(
                f"{repository.registry} is not a configured registry: "
                f'add [upstreams."{repository.registry}"] on node and seeder'
            )
        return Repository.parse(registry, repository.name), reference

    def _told_transfers(self) -> list[admin.Transfer]:
        running = self._transfers.all_running()
        self._looks = {transfer.digest: self._look(transfer) for transfer in running}
        return [self._told(transfer, self._looks[transfer.digest].rate) for transfer in running]

    def _look(self, transfer: Transfer) -> _Look:
        now, have = trio.current_time(), transfer.bytes_held
        before = self._looks.get(transfer.digest)
        if before is None:
            before = _Look(transfer.started_at, transfer.bytes_before, 0.0)
        if now - before.at < _RATE_WINDOW:
            return before
        return _Look(now, have, max(0, have - before.have) / (now - before.at))

    @staticmethod
    def _told(transfer: Transfer, rate: float) -> admin.Transfer:
        return admin.Transfer(
            digest=str(transfer.digest),
            repository=str(transfer.repository),
            size=transfer.layout.size,
            have=transfer.bytes_held,
            assembled=transfer.partial.frontier,
            rate=round(rate, 1),
            seconds=round(trio.current_time() - transfer.started_at, 3),
            way=transfer.plan.way.value,
            members=len(list(transfer.plan.members)),
            holders=len(list(transfer.plan.holders)),
        )


def _platform(text: str | None) -> Platform | None:
    """None means all."""
    if text == "all":
        return None
    return Platform.parse(text) if text else Platform.of_machine(platform.machine())
