"""One notice a peer for all transfers under way, encoded once for all peers that are told the same."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from p2pd.app.transfer import Transfer
from p2pd.model.messages import DELTAS_LIMIT, ProgressBatch, ProgressDelta
from p2pd.ports.peers import Peers

__all__ = ["report_nowait"]


def report_nowait(peers: Peers, transfers: Iterable[Transfer], turn: int) -> None:
    """Tell the members of each transfer what is due at report number `turn`."""
    now = trio.current_time()
    told: dict[str, list[ProgressDelta]] = {}
    for transfer in transfers:
        if (due := transfer.due_report(now, turn)) is not None:
            delta, hearers = due
            for node in hearers:
                told.setdefault(node, []).append(delta)
    # Most peers are members of the same transfers.
    alike: dict[tuple[int, ...], tuple[list[ProgressDelta], list[str]]] = {}
    for node, deltas in told.items():
        alike.setdefault(tuple(map(id, deltas)), (deltas, []))[1].append(node)
    for deltas, nodes in alike.values():
        for start in range(0, len(deltas), DELTAS_LIMIT):
            peers.notify_nowait(nodes, ProgressBatch(tuple(deltas[start : start + DELTAS_LIMIT])))
