"""The libtorrent adapter, between real sessions on loopback."""

from __future__ import annotations

import hashlib
import random
import socket
from pathlib import Path

import libtorrent as lt
import pytest
import trio
from trio.testing import MockClock

from p2pd.decide.suspects import MIXED_BAN
from p2pd.io.swarm import LibtorrentSegment, open_swarm
from p2pd.io.swarm_settings import torrent_params
from p2pd.model.errors import OurFault, StoreError
from p2pd.model.layout import MIB, SegmentMeta
from p2pd.model.reference import Digest


def make_meta(data: bytes) -> SegmentMeta:
    digest = Digest(hashlib.sha256(data).hexdigest())
    meta = SegmentMeta(digest, len(data), 0, b"")
    segment = meta.segment
    hashes = b"".join(
        hashlib.sha1(data[i * segment.piece_length : (i + 1) * segment.piece_length]).digest()
        for i in range(segment.piece_count)
    )
    return SegmentMeta(digest, len(data), 0, hashes)


def path_of(directory: Path, meta: SegmentMeta) -> Path:
    directory.mkdir(exist_ok=True)
    return directory / f"{meta.digest.hex}.{meta.index}"


async def wait_until_readable(segment: LibtorrentSegment) -> None:
    with trio.fail_after(20):
        while True:
            changed = segment.changed
            if len(segment.readable) == segment.meta.segment.piece_count:
                return
            await changed.wait()


async def test_a_port_in_use_is_told_and_no_other_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OurFault, match=f"for BitTorrent on 127.0.0.1:{port}: Address already in use"):
            async with open_swarm("127.0.0.1", port):
                pass
    async with open_swarm("127.0.0.1", port) as swarm:
        assert swarm.port == port


DATA = random.Random(1).randbytes(9 * MIB + 12345)
META = make_meta(DATA)


async def test_pieces_spread_from_a_seed_and_from_the_wan(tmp_path: Path) -> None:
    seed_path, leech_path = path_of(tmp_path / "a", META), path_of(tmp_path / "b", META)
    seed_path.write_bytes(DATA)
    async with open_swarm("127.0.0.1", 0) as one, open_swarm("127.0.0.1", 0) as two:
        seed = await one.add(META, seed_path, complete=True)
        leech = await two.add(META, leech_path, complete=False)
        assert seed.is_complete
        assert not leech.have
        leech.connect("127.0.0.1", one.port)
        await wait_until_readable(leech)
        assert leech.is_complete
        assert leech_path.read_bytes() == DATA
        await leech.remove()
        again = await two.add(META, leech_path, complete=False)
        assert again.is_complete, "a file left by an earlier run is checked and adopted"


async def test_handed_over_pieces_are_checked(tmp_path: Path) -> None:
    path = path_of(tmp_path / "a", META)
    async with open_swarm("127.0.0.1", 0) as swarm:
        segment = await swarm.add(META, path, complete=False)
        segment.add_piece_nowait(2, DATA[2 * MIB : 3 * MIB])
        segment.add_piece_nowait(0, b"x" * MIB)
        with trio.fail_after(10):
            while segment.readable != {2}:
                await segment.changed.wait()
            while 0 not in segment.take_refused():
                await segment.changed.wait()
        assert segment.have == {2}
        with path.open("rb") as file:
            file.seek(2 * MIB)
            assert file.read(MIB) == DATA[2 * MIB : 3 * MIB]
        for piece in {0, *range(META.segment.piece_count)} - {2}:
            segment.add_piece_nowait(piece, DATA[piece * MIB : (piece + 1) * MIB])
        await wait_until_readable(segment)
        assert path.read_bytes() == DATA


async def test_wrong_bytes_of_a_peer_never_count(tmp_path: Path) -> None:
    bad = bytearray(DATA)
    bad[5 * MIB] ^= 1
    bad_path = path_of(tmp_path / "a", META)
    bad_path.write_bytes(bad)
    async with open_swarm("127.0.0.1", 0) as one, open_swarm("127.0.0.1", 0) as two:
        await one.add(META, bad_path, complete=True)
        leech = await two.add(META, path_of(tmp_path / "b", META), complete=False)
        leech.connect("127.0.0.1", one.port)
        with trio.fail_after(20):
            while len(leech.have) < META.segment.piece_count - 1:
                await leech.changed.wait()
        assert 5 not in leech.have


async def test_a_file_that_is_known_to_be_whole_is_never_written(tmp_path: Path) -> None:
    """It may be a held blob's: to find what rotted, and to drop it all, is for the store."""
    rotten = bytearray(DATA)
    rotten[5 * MIB] ^= 1
    path = path_of(tmp_path / "a", META)
    path.write_bytes(rotten)
    good_path = path_of(tmp_path / "c", META)
    good_path.write_bytes(DATA)
    async with (
        open_swarm("127.0.0.1", 0) as one,
        open_swarm("127.0.0.1", 0) as two,
        open_swarm("127.0.0.1", 0) as three,
    ):
        held = await one.add(META, path, complete=True)
        leech = await two.add(META, path_of(tmp_path / "b", META), complete=False)
        leech.connect("127.0.0.1", one.port)
        with trio.fail_after(20):
            while len(leech.have) < META.segment.piece_count - 1:
                await leech.changed.wait()
        await three.add(META, good_path, complete=True)
        held.connect("127.0.0.1", three.port)
        leech.connect("127.0.0.1", three.port)
        await wait_until_readable(leech)
        assert path.read_bytes() == rotten


async def test_each_ban_is_told() -> None:
    async with open_swarm("127.0.0.1", 0) as swarm:
        told: list[str] = []
        swarm.on_ban(told.append)
        swarm.banned("10.20.1.4")
        swarm.banned("10.20.1.4")
        assert told == ["10.20.1.4", "10.20.1.4"]


async def test_a_ban_among_many_bad_pieces_is_no_proof_yet(autojump_clock: MockClock) -> None:
    async with open_swarm("127.0.0.1", 0) as swarm:
        told: list[str] = []
        swarm.on_ban(told.append)
        segment = LibtorrentSegment(swarm, META, "a name")
        for piece in range(MIXED_BAN):
            segment._piece_refused(piece)
        await swarm.judge(segment, "10.20.1.5")
        assert told == []
        await swarm.judge(segment, "10.20.1.5")
        assert told == ["10.20.1.5"]


async def test_a_host_is_shut_out_of_every_torrent_for_a_time(autojump_clock: MockClock) -> None:
    async with open_swarm("127.0.0.1", 0) as swarm:

        def is_blocked(host: str) -> bool:
            return bool(swarm._session.get_ip_filter().access(host))

        swarm.shut_out("10.20.1.4", 600)
        await trio.sleep(400)
        swarm.shut_out("10.20.1.4", 600)
        swarm.shut_out("fd00::4", 600)
        assert is_blocked("10.20.1.4")
        assert is_blocked("fd00::4")
        assert not is_blocked("10.20.1.5")
        await trio.sleep(201)
        assert not is_blocked("10.20.1.4")
        assert is_blocked("fd00::4")


def test_a_torrent_heeds_who_is_shut_out(tmp_path: Path) -> None:
    params = torrent_params(META, "name", tmp_path, complete=False)
    assert params.flags & lt.torrent_flags.apply_ip_filter


async def test_a_disk_error_is_reported(tmp_path: Path) -> None:
    path = path_of(tmp_path / "a", META)
    path.mkdir()
    async with open_swarm("127.0.0.1", 0) as swarm:
        with pytest.raises(StoreError, match="Is a directory"):
            await swarm.add(META, path, complete=False)
        path.rmdir()
        assert not (await swarm.add(META, path, complete=False)).have, "the name is free again"


async def test_an_add_that_is_given_up_does_not_bar_the_next(tmp_path: Path) -> None:
    path = path_of(tmp_path, META)
    path.write_bytes(DATA)
    async with open_swarm("127.0.0.1", 0) as swarm:
        with trio.CancelScope() as scope:
            scope.cancel()
            await swarm.add(META, path, complete=True)
        assert scope.cancelled_caught
        # By the time another one is in, the session has dealt with the first.
        other = make_meta(DATA[: 2 * MIB])
        await swarm.add(other, path_of(tmp_path, other), complete=False)
        with trio.fail_after(10):
            assert (await swarm.add(META, path, complete=True)).is_complete


async def test_a_piece_that_is_finished_while_its_torrent_is_removed(tmp_path: Path) -> None:
    async with open_swarm("127.0.0.1", 0) as swarm, trio.open_nursery() as nursery:
        segment = await swarm.add(META, path_of(tmp_path, META), complete=False)
        handle = segment._handle
        assert handle is not None
        nursery.start_soon(segment.remove)
        for _ in range(2):
            await trio.lowlevel.checkpoint()
        while handle.is_valid():
            pass  # the alerts are not read before libtorrent has removed it
        segment._piece_finished(0)
