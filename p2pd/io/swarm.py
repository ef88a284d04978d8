"""libtorrent as the swarm engine: one plain BitTorrent v1 torrent a segment.

What measurement and libtorrent's sources taught, and this file holds to:

* `add_piece` before `torrent_checked_alert` is silently lost: `add` returns after that alert.
* `piece_finished_alert` does not mean that the bytes are in the file. They are once a
  `flush_cache` that was asked for afterwards has answered with `cache_flushed_alert`.
* Calls on a torrent_handle that return a value wait for libtorrent's network thread: none is made
  in the event loop. Alerts are told apart by the torrent's name, which they carry themselves.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import libtorrent as lt
import structlog
import trio

from p2pd.decide.suspects import Suspects
from p2pd.io.swarm_settings import new_session, torrent_params
from p2pd.model.errors import OurFault, P2pdError, StoreError, StoreFull
from p2pd.model.layout import SegmentMeta
from p2pd.model.rate import UNLIMITED
from p2pd.ports.swarm import segment_name

__all__ = ["LibtorrentSegment", "LibtorrentSwarm", "open_swarm"]

log = structlog.get_logger()

_FLUSH_EVERY = 0.25
"""Seconds between two flushes of a segment still in download: bounds what delivery lags behind."""

_ADD_TIMEOUT = 30.0
_REMOVE_TIMEOUT = 5.0

_BLOCKED = 1
"""As libtorrent's ip_filter has it."""

_COUNT_WITHIN = 0.5
"""Seconds after a ban in which the torrent's bad pieces are all told: the alert of the ban comes first."""


class LibtorrentSegment:
    """One torrent; satisfies `p2pd.ports.swarm.SwarmSegment`. State is kept by the engine's pump."""

    def __init__(self, engine: LibtorrentSwarm, meta: SegmentMeta, name: str) -> None:
        self.meta = meta
        self.changed = trio.Event()
        self.error: P2pdError | None = None
        self._engine = engine
        self._name = name
        self._handle: lt.torrent_handle | None = None
        self._asked = self._is_leaving = False
        self._checked = trio.Event()
        self._removed = trio.Event()
        self._have: set[int] = set()
        self._readable: frozenset[int] = frozenset()
        self._refused: set[int] = set()
        self._refusals = 0
        self._loaded_at = trio.current_time()
        self._flushing: frozenset[int] | None = None
        self._last_flush = -_FLUSH_EVERY

    @property
    def have(self) -> frozenset[int]:
        return frozenset(self._have)

    @property
    def readable(self) -> frozenset[int]:
        return self._readable

    @property
    def is_complete(self) -> bool:
        return len(self._have) == self.meta.segment.piece_count

    def take_refused(self) -> set[int]:
        refused, self._refused = self._refused, set()
        return refused

    def add_piece_nowait(self, piece: int, data: bytes) -> None:
        if self._handle is not None and self.error is None:
            self._engine.give(self._handle, piece, data)

    def connect(self, host: str, port: int) -> None:
        if self._handle is not None and self.error is None:
            self._handle.connect_peer((host, port))

    async def remove(self) -> None:
        await self._engine.remove(self)

    # What follows is called by the engine's pump only.

    def _poke(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def _all_have(self) -> None:
        self._have = set(range(self.meta.segment.piece_count))
        self._readable = frozenset(self._have)

    def _piece_finished(self, piece: int) -> None:
        self._have.add(piece)
        self._flush_if_due()
        self._poke()

    def _flush_if_due(self) -> None:
        """Ask for a flush unless one is under way, or it is too soon and more pieces will come."""
        if self._handle is None or self._flushing is not None or len(self._readable) == len(self._have):
            return
        now = trio.current_time()
        if not self.is_complete and now - self._last_flush < _FLUSH_EVERY:
            self._engine.flush_later(self, self._last_flush + _FLUSH_EVERY)
            return
        self._last_flush = now
        self._flushing = frozenset(self._have)
        self._handle.flush_cache()

    def _cache_flushed(self) -> None:
        # libtorrent also flushes by itself when a torrent is finished; that answer only comes
        # after every earlier flush, so taking it for ours never claims a piece too early.
        if self._flushing is None:
            return
        self._readable, self._flushing = self._flushing, None
        self._flush_if_due()
        self._poke()

    def _piece_refused(self, piece: int) -> None:
        self._refused.add(piece)
        self._refusals += 1
        if self._handle is not None:
            # Near its end a torrent asks nobody again for 5 s, but each second for a piece with a deadline.
            self._handle.set_piece_deadline(piece, 0)
        self._poke()

    def _failed(self, error: P2pdError) -> None:
        self.error = error
        self._checked.set()
        self._poke()


class LibtorrentSwarm:
    """The session and its alert pump; satisfies `p2pd.ports.swarm.SwarmEngine`."""

    def __init__(self, session: lt.session, nursery: trio.Nursery) -> None:
        self._session = session
        self._nursery = nursery
        self._segments: dict[str, LibtorrentSegment] = {}
        self._flush_due: dict[str, float] = {}
        self._flush_scheduled = False
        self._gifts: deque[tuple[lt.torrent_handle, int, bytes]] = deque()
        self._giving = False
        self._on_ban: list[Callable[[str], None]] = []
        self._suspects = Suspects()
        self._shut_out: set[str] = set()
        self.port = 0

    def close(self) -> None:
        """End the session; blocks until libtorrent's threads are gone. Nothing works afterwards."""
        for segment in self._segments.values():
            segment._handle = None
        del self._session

    def on_ban(self, callback: Callable[[str], None]) -> None:
        """Call with the IP address of each peer that is found to have given wrong bytes.

        libtorrent finds the one to blame by giving a suspect whole pieces to itself, but keeps the ban to one
        torrent, and lifts it when the peer is dialled again: `shut_out` does neither. It bans honest peers,
        too, where a liar was: of those nothing is told (`Suspects`).
        """
        self._on_ban.append(callback)

    async def judge(self, segment: LibtorrentSegment, host: str) -> None:
        """Tell who was banned with good reason."""
        await trio.sleep(_COUNT_WITHIN)
        bad = segment._refusals
        if self._suspects.convict(host, bad, segment._loaded_at, trio.current_time()):
            self.banned(host)
        else:
            log.info("swarm.suspect", peer=host, digest=str(segment.meta.digest), bad=bad)

    def banned(self, host: str) -> None:
        for callback in self._on_ban:
            callback(host)

    def shut_out(self, host: str, seconds: float) -> None:
        """Leave an IP address out of every torrent; once it is out, a further call changes nothing."""
        if host not in self._shut_out:
            self._shut_out.add(host)
            self._filter_hosts()
            self._nursery.start_soon(self._let_in_later, host, seconds)

    async def _let_in_later(self, host: str, seconds: float) -> None:
        await trio.sleep(seconds)
        self._shut_out.discard(host)
        self._filter_hosts()

    def _filter_hosts(self) -> None:
        """Tell libtorrent whom to refuse; who is connected loses that, too."""
        hosts = lt.ip_filter()
        for host in self._shut_out:
            hosts.add_rule(host, host, _BLOCKED)
        self._session.set_ip_filter(hosts)

    async def add(self, meta: SegmentMeta, path: Path, *, complete: bool) -> LibtorrentSegment:
        name = segment_name(meta)
        if path.name != name:
            raise OurFault(f"segment file {path} is not named {name}")
        if not meta.is_consistent or name in self._segments:
            raise OurFault(f"segment {name} cannot be loaded: it is loaded already or its metadata is wrong")
        segment = LibtorrentSegment(self, meta, name)
        self._segments[name] = segment
        try:
            has_file = not complete and await trio.to_thread.run_sync(path.exists)
            self._session.async_add_torrent(torrent_params(meta, name, path.parent, complete=complete))
            segment._asked = True
            with trio.move_on_after(_ADD_TIMEOUT):
                await segment._checked.wait()
            if segment.error is not None:
                raise segment.error
            if segment._handle is None:
                raise StoreError(f"libtorrent did not take segment {name} within {_ADD_TIMEOUT:.0f} s")
            if complete:
                segment._all_have()
            elif has_file:
                await self._adopt_checked(segment)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.remove(segment)
            raise
        return segment

    async def _adopt_checked(self, segment: LibtorrentSegment) -> None:
        """Take over what the check of a file left by an earlier run found."""
        handle = segment._handle
        if handle is None:
            return
        status = await trio.to_thread.run_sync(handle.status, lt.status_flags_t.query_pieces)
        found = {piece for piece, good in enumerate(status.pieces) if good}
        segment._have |= found
        segment._readable = frozenset(segment._readable | found)

    async def remove(self, segment: LibtorrentSegment) -> None:
        if self._segments.get(segment._name) is not segment:
            return
        if segment._asked and segment._handle is None and segment.error is None:
            # Given up while being added: left in the session it would bar the next of its name for good.
            with trio.move_on_after(_REMOVE_TIMEOUT):
                await segment._checked.wait()
        # Its last alerts are still to come, and a handle of a removed torrent raises at every use.
        handle, segment._handle = segment._handle, None
        if handle is not None:
            self._session.remove_torrent(handle)
            segment._is_leaving = True
        if segment._is_leaving:
            with trio.move_on_after(_REMOVE_TIMEOUT):
                await segment._removed.wait()
        self._segments.pop(segment._name, None)

    def give(self, handle: lt.torrent_handle, piece: int, data: bytes) -> None:
        """Hand a piece over from a thread, one after the other: the call waits for libtorrent's own."""
        self._gifts.append((handle, piece, data))
        if not self._giving:
            self._giving = True
            self._nursery.start_soon(self._hand_over)

    async def _hand_over(self) -> None:
        try:
            while self._gifts:
                await trio.to_thread.run_sync(_add_piece, *self._gifts.popleft())
        finally:
            self._giving = False

    def limit_rate(self, bytes_s: float) -> None:
        """What is sent to peers, and taken from them, at most; infinity for no limit."""
        rate = 0 if bytes_s == UNLIMITED else max(1, int(bytes_s))
        self._session.apply_settings({"upload_rate_limit": rate, "download_rate_limit": rate})

    def flush_later(self, segment: LibtorrentSegment, at: float) -> None:
        self._flush_due[segment._name] = at
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._nursery.start_soon(self._flush_when_due)

    async def _flush_when_due(self) -> None:
        while self._flush_due:
            await trio.sleep_until(min(self._flush_due.values()))
            now = trio.current_time()
            for name in [name for name, at in self._flush_due.items() if at <= now]:
                del self._flush_due[name]
                if (segment := self._segments.get(name)) is not None:
                    segment._flush_if_due()
        self._flush_scheduled = False

    async def pump(self, readable: socket.socket) -> None:
        """Turn libtorrent's alerts into segment state, for ever."""
        while True:
            await trio.lowlevel.wait_readable(readable)
            with suppress(BlockingIOError):
                while readable.recv(4096):
                    pass
            for alert in self._session.pop_alerts():
                self._handle_alert(alert)

    def _handle_alert(self, alert: lt.alert) -> None:
        if not isinstance(alert, lt.torrent_alert):
            if isinstance(alert, lt.alerts_dropped_alert | lt.listen_failed_alert):
                log.error("swarm.alert", reason=alert.message())
            return
        segment = self._segments.get(alert.torrent_name)
        if segment is not None:
            _ON_ALERT.get(type(alert), _ignore)(segment, alert)


def _add_piece(handle: lt.torrent_handle, piece: int, data: bytes) -> None:
    # RuntimeError: the torrent was removed meanwhile, and nobody waits for the piece.
    with suppress(RuntimeError):
        handle.add_piece(piece, data, 0)


def _ignore(segment: LibtorrentSegment, alert: lt.torrent_alert) -> None:
    pass


def _on_added(segment: LibtorrentSegment, alert: lt.add_torrent_alert) -> None:
    if alert.error.value():
        segment._failed(StoreError(f"libtorrent refused a segment: {alert.error.message()}"))
    else:
        segment._handle = alert.handle


def _on_hash_failed(segment: LibtorrentSegment, alert: lt.hash_failed_alert) -> None:
    log.warning("swarm.piece_refused", digest=str(segment.meta.digest), piece=alert.piece_index)
    segment._piece_refused(alert.piece_index)


def _on_banned(segment: LibtorrentSegment, alert: lt.peer_ban_alert) -> None:
    engine = segment._engine
    engine._nursery.start_soon(engine.judge, segment, alert.endpoint[0])


def _on_disk_error(segment: LibtorrentSegment, alert: lt.torrent_error_alert | lt.file_error_alert) -> None:
    segment._failed(_disk_error(alert))


_ON_ALERT: dict[type, Callable[[LibtorrentSegment, Any], None]] = {
    lt.piece_finished_alert: lambda segment, alert: segment._piece_finished(alert.piece_index),
    lt.cache_flushed_alert: lambda segment, _: segment._cache_flushed(),
    lt.hash_failed_alert: _on_hash_failed,
    lt.peer_ban_alert: _on_banned,
    lt.add_torrent_alert: _on_added,
    lt.torrent_checked_alert: lambda segment, _: segment._checked.set(),
    lt.torrent_removed_alert: lambda segment, _: segment._removed.set(),
    lt.torrent_error_alert: _on_disk_error,
    lt.file_error_alert: _on_disk_error,
}


def _disk_error(alert: lt.torrent_error_alert | lt.file_error_alert) -> StoreError:
    kind = StoreFull if alert.error.value() in {errno.ENOSPC, errno.EDQUOT} else StoreError
    return kind(f"the swarm could not use its file: {alert.message()}")


@asynccontextmanager
async def open_swarm(host: str, port: int) -> AsyncGenerator[LibtorrentSwarm, None]:
    """A session listening on `host`:`port` (0: any). Ends every torrent when the block is left.

    Raises OurFault where another process has the port.
    """
    session = await trio.to_thread.run_sync(new_session, f"{host}:{port}")
    bound = await trio.to_thread.run_sync(session.listen_port)
    if port and bound not in (0, port):  # libtorrent moves on to the next; a firewall does not
        raise OurFault(
            f"cannot listen for BitTorrent on {host}:{port}: Address already in use; stop what uses it, "
            "or configure another port"
        )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        session.set_alert_fd(theirs.fileno())
        async with trio.open_nursery() as nursery:
            swarm = LibtorrentSwarm(session, nursery)
            del session
            swarm.port = bound
            nursery.start_soon(swarm.pump, ours)
            try:
                yield swarm
            finally:
                nursery.cancel_scope.cancel()
        # The session writes to the socket pair until its destructor, which waits for its threads.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(swarm.close)
