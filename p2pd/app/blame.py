"""Who gave wrong bytes, and for how long nothing is to do with it."""

from __future__ import annotations

from p2pd.io.peers import PeerNetwork
from p2pd.io.swarm import LibtorrentSwarm

__all__ = ["SHUN_S", "leave_liars_out"]

SHUN_S = 600.0
"""Seconds for which a host that gave wrong bytes is left out: long for an update, short for a mended disk."""


def leave_liars_out(swarm: LibtorrentSwarm, network: PeerNetwork) -> None:
    """From now on: whom the swarm finds to have given wrong bytes, by it and by the control plane."""

    def leave_out(host: str) -> None:
        swarm.shut_out(host, SHUN_S)
        network.shun(host, "it gave bytes that fail their hashes", SHUN_S)

    swarm.on_ban(leave_out)
