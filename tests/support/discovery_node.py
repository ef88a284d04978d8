"""A node's discovery and control plane alone, as a process: `python -m tests.support.discovery_node ID`.

Prints the live peers as a JSON line `{"at": monotonic seconds, "live": {id: host}}` at every change.
"""

from __future__ import annotations

import json
import signal
import sys
import time

import structlog
import trio

from p2pd.io.mdns import Advertisement, run_mdns
from p2pd.io.peers import PeerNetwork
from tests.support.peer_handlers import ScriptedHandler

CONTROL_PORT = 7781


async def main(node_id: str) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    network = PeerNetwork(node_id, "shop", 6881, ScriptedHandler())

    def show() -> None:
        live = {peer.node_id: peer.host for peer in network.live()}
        sys.stdout.write(json.dumps({"at": time.monotonic(), "live": live}) + "\n")
        sys.stdout.flush()

    network.on_change(show)
    network.set_busy(True)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(network.run, "0.0.0.0", CONTROL_PORT)
            show()
            await nursery.start(
                run_mdns, Advertisement(node_id, "shop", CONTROL_PORT, 6881), network.add_address
            )
            async for _ in signals:
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
