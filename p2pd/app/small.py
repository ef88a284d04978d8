"""Objects too small for a swarm: manifests, configs, layers of less than a piece.

Whoever holds one gives it. If nobody does, one node of the site (the first in rendezvous rank of
the digest) fetches it over the WAN for all, and the others ask that one.
"""

from __future__ import annotations

import hashlib
import math

import structlog
import trio

from p2pd.app.bounded import Bounded
from p2pd.app.everyone import ask_everyone
from p2pd.app.flights import Flights
from p2pd.app.site import Site
from p2pd.decide.ownership import object_key, ranked
from p2pd.decide.plan import Way
from p2pd.model.errors import P2pdError, PeerProtocolError, PeerUnavailable, StoreError, WrongContent
from p2pd.model.layout import MANIFEST_LIMIT, SMALL_BLOB
from p2pd.model.messages import READ_LIMIT, Fetch, Fetched, Query, QueryReply, Read, ReadReply, Reply
from p2pd.model.reference import Digest, Repository
from p2pd.ports.peers import Peer

__all__ = ["SmallObjects"]

log = structlog.get_logger()

QUERY = 0.5

AT_ONCE = 24
"""Small objects under way over the WAN; more share its rate without coming any sooner."""
OWNER_DEADLINE = 4.0
READ_DEADLINE = 3.0

LAN_PATIENCE = 5.5
"""Seconds for all peers together, where there is a way over the WAN: that has to have its turn before a
client's deadline, however many peers are sick."""

SLOW_FOR = 30.0
"""Seconds for which a peer that gave no bytes in time is passed over: one whose disk hangs says what it holds
from memory, as fast as any."""

_SLOW = 2048


class SmallObjects:
    """Brings small objects into the store, one flight each."""

    def __init__(self, site: Site) -> None:
        self._site = site
        # By repository and kind: what is not there as a blob of one may be there as a manifest of another.
        # Two kinds of flight, lest two nodes that take each other for the owner wait for each other.
        self._flights: Flights[Fetch, bytes] = Flights()
        self._fetches: Flights[Fetch, bytes] = Flights()
        self._slots = trio.CapacityLimiter(AT_ONCE)
        self._slow_at: Bounded[str, float] = Bounded(_SLOW)

    async def obtain(self, repository: Repository, digest: Digest, *, is_manifest: bool) -> bytes:
        """The verified bytes, held from now on if the disk takes them. Raises P2pdError."""
        held = await self._site.store.read(digest)
        if held is not None:
            return held

        async def bring() -> bytes:
            return await self._bring(repository, digest, is_manifest=is_manifest)

        return await self._flights.join(Fetch(repository, digest, is_manifest), bring)

    async def fetch_for_peer(self, repository: Repository, digest: Digest, *, is_manifest: bool) -> int:
        """As its owner: hold the object, asking only the WAN. Returns its size."""
        held = await self._site.store.read(digest)
        if held is not None:
            return len(held)
        return len(await self._fetch(repository, digest, is_manifest=is_manifest))

    async def _bring(self, repository: Repository, digest: Digest, *, is_manifest: bool) -> bytes:
        has_wan = self._site.wan.way(repository) is not Way.NONE
        with trio.move_on_after(LAN_PATIENCE if has_wan else math.inf):
            body = await self._from_peers(Fetch(repository, digest, is_manifest), has_wan=has_wan)
            if body is not None:
                return body
        return await self._fetch(repository, digest, is_manifest=is_manifest)

    async def _from_peers(self, message: Fetch, *, has_wan: bool) -> bytes | None:
        """From a holder, else through the owner; None where neither gives it, or this node is the owner."""
        peers, digest = self._site.live(), message.digest
        holders = sorted(await self.holders(digest), key=lambda holder: self._is_slow(holder[0]))
        for node, size in holders:
            if node not in peers or (has_wan and self._is_slow(node)):
                continue
            body = await self._read_from(peers[node], digest, size)
            if body is not None:
                return body
        nodes = [self._site.me, *(node for node in peers if not self._is_slow(node))]
        for node in ranked(object_key(str(digest)), nodes)[:2]:
            if node == self._site.me:
                break
            body = await self._ask_owner(peers[node], message)
            if body is not None:
                return body
        return None

    def _is_slow(self, node: str) -> bool:
        return trio.current_time() - self._slow_at.get(node, -math.inf) < SLOW_FOR

    async def holders(self, digest: Digest) -> list[tuple[str, int]]:
        """Peers that hold the digest, with its size."""
        found: list[tuple[str, int]] = []

        def take(node: str, reply: Reply) -> None:
            if isinstance(reply, QueryReply) and reply.held_size is not None:
                found.append((node, reply.held_size))

        await ask_everyone(self._site.peers, Query(digest), QUERY, take)
        return found

    async def _ask_owner(self, peer: Peer, message: Fetch) -> bytes | None:
        try:
            reply = await self._site.peers.request(peer.node_id, message, OWNER_DEADLINE)
        except P2pdError as error:
            log.debug("small.owner_failed", digest=str(message.digest), peer=peer.node_id, reason=str(error))
            return None
        if not isinstance(reply, Fetched):
            return None
        return await self._read_from(peer, message.digest, reply.size)

    async def _read_from(self, peer: Peer, digest: Digest, size: int) -> bytes | None:
        """Read a whole object from a peer and hold it; None when it fails or lies."""
        if size > MANIFEST_LIMIT:
            return None
        body = bytearray()
        try:
            with trio.fail_after(READ_DEADLINE):
                while len(body) < size:
                    read = Read(digest, len(body), min(READ_LIMIT, size - len(body)))
                    reply = await self._site.peers.request(peer.node_id, read, READ_DEADLINE)
                    if not isinstance(reply, ReadReply) or len(reply.data) != read.length:
                        raise PeerProtocolError(f"peer {peer.node_id} gave another length than asked for")
                    body += reply.data
            await self._keep(digest, bytes(body))
        except (P2pdError, trio.TooSlowError) as error:
            self._count_peer_failure(error)
            # That a peer vanished, or let it go a moment ago, is the life of a site.
            is_silent = isinstance(error, PeerUnavailable | trio.TooSlowError)
            level = log.info if is_silent else log.warning
            if is_silent:
                self._slow_at[peer.node_id] = trio.current_time()
            reason = str(error) or f"it took more than {READ_DEADLINE:g} s"
            level("small.peer_failed", digest=str(digest), peer=peer.node_id, reason=reason)
            return None
        self._site.metrics.lan_bytes.inc(size)
        self._site.metrics.wan_spared_bytes.inc(size)
        return bytes(body)

    def _count_peer_failure(self, error: Exception) -> None:
        metrics = self._site.metrics
        if isinstance(error, WrongContent):
            metrics.hash_failures.labels("blob").inc()
        if isinstance(error, StoreError):
            metrics.failed("lan", error)
        else:
            metrics.errors.labels("lan", "peer").inc()

    async def _fetch(self, repository: Repository, digest: Digest, *, is_manifest: bool) -> bytes:
        wan = self._site.wan

        async def fetch() -> bytes:
            try:
                # Waiting in line here is not a source's slowness, and must not count as such.
                async with self._slots:
                    if is_manifest:
                        body = (await wan.manifest(repository, digest)).body
                    else:
                        body = await wan.small_blob(repository, digest, SMALL_BLOB)
                await self._keep(digest, body)
            except WrongContent:
                self._site.metrics.hash_failures.labels("blob").inc()
                raise
            return body

        return await self._fetches.join(Fetch(repository, digest, is_manifest), fetch)

    async def _keep(self, digest: Digest, body: bytes) -> None:
        """Check and hold it; where the disk does not take it, only check. Raises WrongContent."""
        try:
            await self._site.store.write(digest, body)
        except StoreError as error:
            if hashlib.sha256(body).hexdigest() != digest.hex:
                raise WrongContent(f"{len(body)} bytes are not {digest}") from error
            log.warning("small.not_kept", digest=str(digest), reason=str(error))
