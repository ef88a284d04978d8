"""Whose word on piece hashes a transfer takes."""

from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import MockClock

from p2pd.app.transfer import TICK
from p2pd.app.transfers import SOURCE_DEADLINE
from p2pd.decide.hearsay import SEEDER_SILENCE
from p2pd.model.layout import MIB, SEGMENT
from tests.support.memory_site import REPOSITORY, open_site
from tests.support.memory_store import meta_of

BODY = bytes(3 * MIB)


async def test_a_holder_is_believed_where_the_seeder_falls_silent(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        node, holder = site.join(1), site.join(2)
        await site.met()
        digest = site.seeder.put(BODY)
        await holder.store.write(digest, BODY)
        site.seeder.is_silent = True  # nothing is refused: packets vanish
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.transfers.obtain, REPOSITORY, digest, len(BODY))
            await trio.sleep(1)
            transfer = node.transfers.running(digest)
            assert transfer is not None
            while 0 not in transfer.metas:
                await transfer.changed.wait()
            waited = trio.current_time() - begun
            nursery.cancel_scope.cancel()
        assert SEEDER_SILENCE <= waited <= SEEDER_SILENCE + 2 * TICK < SOURCE_DEADLINE
        assert transfer.metas[0] == meta_of(digest, BODY, len(BODY), 0)
        assert transfer.is_peers_fault, "wrong bytes would be laid at a peer's door"


async def test_a_word_on_a_blob_of_another_size_is_none(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_site(tmp_path) as site:
        node = site.join(1, seeder=False, origin=False)
        digest = site.seeder.put(BODY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.transfers.obtain, REPOSITORY, digest, len(BODY))
            await trio.sleep(1)
            transfer = node.transfers.running(digest)
            assert transfer is not None
            larger = BODY + bytes(SEGMENT)
            for index in range(2):
                wrong = meta_of(digest, larger, len(larger), index)
                assert wrong is not None
                transfer.hear_meta("b" * 32, wrong)
            assert not transfer.metas
            assert not transfer.is_peers_fault, "it had no part in what this node fetches"
            right = meta_of(digest, BODY, len(BODY), 0)
            assert right is not None
            transfer.hear_meta("b" * 32, right)
            assert transfer.metas == {0: right}
            nursery.cancel_scope.cancel()
