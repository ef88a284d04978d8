"""A host that gave wrong bytes is left out by both planes, and for the same time."""

from __future__ import annotations

import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from p2pd.app.blame import SHUN_S, leave_liars_out
from p2pd.io.swarm import open_swarm
from tests.support.memory_lan import accept, open_lan, wait_live


async def test_a_liar_is_left_out_of_swarm_and_control_plane(autojump_clock: MockClock) -> None:
    async with open_swarm("127.0.0.1", 0) as swarm, open_lan() as lan:

        def is_blocked() -> bool:
            return bool(swarm._session.get_ip_filter().access("10.0.0.2"))

        network = await lan.node()
        leave_liars_out(swarm, network)
        await lan.live(network)
        began = trio.current_time()
        with capture_logs() as logs:
            swarm.banned("10.0.0.2")
            swarm.banned("10.0.0.2")
        assert [line["event"] for line in logs].count("peer shunned") == 1
        assert network.live() == []
        assert is_blocked()
        await accept(lan)
        await wait_live(network, "10.0.0.2")
        assert SHUN_S <= trio.current_time() - began <= SHUN_S + 60, "it is dialled once a minute"
        assert not is_blocked()
