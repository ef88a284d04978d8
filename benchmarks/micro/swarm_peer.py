"""A bare libtorrent peer, as a program of its own: `swarm_peer.py HOST:PORT FOLDER PEERS FILE…`.

What a swarm costs without p2pd around it: libtorrent as it comes, but for what looks for peers or
other ways out of a closed LAN (those settings are p2pd's too). It says "ready", begins at SIGUSR1,
says "done" when it has every piece, and goes on seeding until it is killed. A FILE is a torrent; a
peer whose FOLDER has the content is a seed.
PEERS are `host:port,…`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import libtorrent as lt

_SETTINGS = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "in_enc_policy": int(lt.enc_policy.pe_disabled),
    "out_enc_policy": int(lt.enc_policy.pe_disabled),
    "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
}
_WAIT_MS = 60_000


def main() -> int:
    listen, folder, peers, *files = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    settings: Any = {"listen_interfaces": listen, **_SETTINGS}
    session = lt.session(settings)
    print("ready", flush=True)
    signal.sigwait({signal.SIGUSR1})
    handles = [session.add_torrent(_torrent(Path(file), Path(folder))) for file in files]
    for handle in handles:
        for peer in filter(None, peers.split(",")):
            host, _, port = peer.rpartition(":")
            handle.connect_peer((host, int(port)))
    missing = len(handles)
    while missing:
        session.wait_for_alert(_WAIT_MS)
        for alert in session.pop_alerts():
            if isinstance(alert, lt.torrent_finished_alert):
                missing -= 1
            elif isinstance(alert, lt.torrent_error_alert | lt.file_error_alert | lt.listen_failed_alert):
                print(alert.message(), flush=True)
                return 1
    print("done", flush=True)
    while True:
        session.wait_for_alert(_WAIT_MS)
        session.pop_alerts()


def _torrent(file: Path, folder: Path) -> lt.add_torrent_params:
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(str(file))
    params.save_path = str(folder)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if (folder / params.ti.name()).exists():
        params.flags |= lt.torrent_flags.seed_mode
    return params


if __name__ == "__main__":
    sys.exit(main())
