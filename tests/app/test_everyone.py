"""One question to all live peers."""

from __future__ import annotations

from pathlib import Path

from trio.testing import MockClock

from p2pd.app.everyone import ask_everyone
from p2pd.app.peer_service import PeerService
from p2pd.model.messages import Query, QueryReply, Reply
from p2pd.model.reference import Digest
from tests.support.memory_site import node_id, open_site


async def test_every_answer_is_taken_and_silence_left_out(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        me, *others = (site.join(number) for number in (1, 2, 3))
        site.lan.join(node_id(4), PeerService())  # was given nothing to answer from
        await site.met()
        taken: dict[str, Reply] = {}
        answered = await ask_everyone(me.peers, Query(Digest("5a" * 32)), 0.5, taken.__setitem__)
        assert answered == {other.node_id for other in others}
        assert taken == dict.fromkeys(answered, QueryReply(None, None))
