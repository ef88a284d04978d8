"""One question to all live peers at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from p2pd.model.errors import P2pdError
from p2pd.model.messages import Reply, Request
from p2pd.ports.peers import Peers

__all__ = ["ask_everyone"]


async def ask_everyone(
    peers: Peers,
    request: Request,
    within: float,
    take: Callable[[str, Reply], None],
    nodes: Iterable[str] | None = None,
) -> set[str]:
    """Call `take` with node id and reply as each comes; the ids of those that answered in `within` seconds.

    All live peers are asked, or only `nodes`.
    A peer that refuses, is gone or is slow is left out: what one does not know another may.
    """
    answered: set[str] = set()

    async def ask(node: str) -> None:
        try:
            reply = await peers.request(node, request, within)
        except P2pdError:
            return
        answered.add(node)
        take(node, reply)

    async with trio.open_nursery() as nursery:
        for node in [peer.node_id for peer in peers.live()] if nodes is None else nodes:
            nursery.start_soon(ask, node)
    return answered
