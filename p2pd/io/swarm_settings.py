"""How libtorrent is set up: for a closed site, on small nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import libtorrent as lt

from p2pd.model.layout import SegmentMeta

__all__ = ["new_session", "torrent_params"]

_ALERTS = (
    lt.alert.category_t.status_notification
    | lt.alert.category_t.error_notification
    | lt.alert.category_t.piece_progress_notification
    | lt.alert.category_t.storage_notification
    | lt.alert.category_t.peer_notification  # for bans
)


def new_session(listen: str) -> lt.session:
    """A session that listens on `listen`, "host:port". Blocks until its threads run."""
    params = lt.session_params()
    params.settings = _settings(listen)
    params.disk_io_constructor = "pread_disk_io_constructor"
    session = lt.session(params)
    session.set_peer_class_filter(_everybody_global())
    return session


def torrent_params(meta: SegmentMeta, name: str, directory: Path, *, complete: bool) -> lt.add_torrent_params:
    """A segment's torrent, on the file `name` in `directory`; `complete`: its bytes need no check.

    Version 1 metadata: SHA-256 pieces (v2) cost a quarter more CPU and 70 MB more memory, and what is
    delivered is decided by the blob's own sha256 in any case.
    """
    segment = meta.segment
    info = {
        b"length": segment.length,
        b"name": name.encode(),
        b"piece length": segment.piece_length,
        b"pieces": meta.piece_hashes,
    }
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(lt.bencode(cast(Any, {b"info": info})))
    params.save_path = str(directory)
    params.flags = lt.torrent_flags.apply_ip_filter
    params.flags |= lt.torrent_flags.disable_dht | lt.torrent_flags.disable_lsd | lt.torrent_flags.disable_pex
    if complete:
        # Its file may be a held blob's: where a piece turns out to be rotten nothing is to be written to it.
        params.flags |= lt.torrent_flags.seed_mode | lt.torrent_flags.upload_mode
    return params


def _settings(listen: str) -> Any:
    return {
        "listen_interfaces": listen,
        "alert_mask": _ALERTS,
        "alert_queue_size": 10_000,
        "user_agent": "p2pd",
        # A closed site: peers come from p2pd's own discovery, over plain TCP.
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "in_enc_policy": int(lt.enc_policy.pe_disabled),
        "out_enc_policy": int(lt.enc_policy.pe_disabled),
        # Everyone in a LAN swarm is wanted: no choking, no politeness, quick to notice the dead.
        "unchoke_slots_limit": -1,
        "allowed_fast_set_size": 0,
        "smooth_connects": False,
        # Peers are told apart by their ids; several may share an address (containers, tests).
        "allow_multiple_connections_per_ip": True,
        "connection_speed": 200,
        "connections_limit": 800,
        "listen_queue_size": 64,
        "min_reconnect_time": 1,
        "max_failcount": 20,
        "peer_connect_timeout": 3,
        "handshake_timeout": 5,
        "request_timeout": 8,
        "piece_timeout": 5,
        "peer_timeout": 60,
        "peer_turnover": 0,
        # Small nodes: few threads, little memory in queues.
        "aio_threads": 2,
        "hashing_threads": 1,
        "file_pool_size": 32,
        "max_queued_disk_bytes": 8 * 1024 * 1024,
        "send_buffer_watermark": 1024 * 1024,
        "max_peer_recv_buffer_size": 1024 * 1024,
        "auto_sequential": False,
        "no_recheck_incomplete_resume": False,
        "close_redundant_connections": False,
    }


def _everybody_global() -> Any:
    """Put every peer under the rate limits: by default those with private addresses are exempt."""
    classes = lt.ip_filter()
    classes.add_rule("0.0.0.0", "255.255.255.255", 1 << lt.session.global_peer_class_id)  # noqa: S104
    classes.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1 << lt.session.global_peer_class_id)
    return classes
