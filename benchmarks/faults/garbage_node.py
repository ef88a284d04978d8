"""A node turned to garbage, as a process: `python -m benchmarks.faults.garbage_node MODE DIRECTORY IMAGE`.

It speaks the real protocol and says that it holds every blob of IMAGE (an OCI layout), but

* mode "hashes": offers wrong piece hashes, and swarms of garbage that fit them;
* mode "pieces": knows the right piece hashes, and gives garbage in their place over the swarm.

In both it answers Read with garbage and Fetch with a size whose bytes are garbage.
"""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import structlog
import trio

from benchmarks.testbed import Image
from p2pd.io.mdns import Advertisement, run_mdns
from p2pd.io.peers import PeerNetwork
from p2pd.io.swarm import open_swarm
from p2pd.model.errors import NotFound
from p2pd.model.layout import Layout, Segment, SegmentMeta
from p2pd.model.messages import (
    Fetch,
    Fetched,
    Join,
    Joined,
    Notice,
    Ping,
    Pong,
    ProgressBatch,
    Query,
    QueryReply,
    Read,
    ReadReply,
    Reply,
    Request,
    SegmentReady,
    Want,
    WantReply,
)
from p2pd.model.reference import Digest
from p2pd.ports.peers import Peer
from p2pd.ports.swarm import segment_name

NODE_ID = "bad0" * 8
SITE = "edge"
CONTROL_PORT, SWARM_PORT = 7781, 7782


class Garbage:
    """Answers to peers, all of the right shape and none of them true."""

    def __init__(self, image: Image) -> None:
        self.sizes = {blob.digest: blob.size for blob in image.content}
        self.metas: dict[tuple[Digest, int], SegmentMeta] = {}
        self.network: PeerNetwork | None = None
        self.pushes_hashes = False

    async def answer(self, peer: Peer, request: Request) -> Reply:
        await trio.lowlevel.checkpoint()
        say(f"asked {type(request).__name__}")
        match request:
            case Ping():
                return Pong()
            case Query(digest=digest):
                return QueryReply(self.sizes.get(digest), None)
            case Want(progress=progress):
                if self.pushes_hashes:
                    self._push_hashes(peer, progress.digest)
                return WantReply(progress.digest in self.sizes, None)
            case Join(digest=digest, index=index):
                meta = self.metas.get((digest, index))
                return Joined(meta is not None, None if meta is None else meta.piece_hashes)
            case Read(length=length):
                return ReadReply(random.randbytes(length))
            case Fetch(digest=digest) if digest in self.sizes:
                return Fetched(self.sizes[digest])
            case _:
                raise NotFound("nothing of that here")

    def notice_nowait(self, peer: Peer, notice: Notice) -> None:
        if self.pushes_hashes and isinstance(notice, ProgressBatch):
            for delta in notice.deltas:
                self._push_hashes(peer, delta.digest)

    def _push_hashes(self, peer: Peer, digest: Digest) -> None:
        assert self.network is not None
        for (of, index), meta in self.metas.items():
            if of == digest:
                ready = SegmentReady(digest, meta.blob_size, index, meta.piece_hashes)
                self.network.notify_nowait([peer.node_id], ready)


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def piece_hashes(body: bytes, segment: Segment) -> bytes:
    starts = range(0, len(body), segment.piece_length)
    return b"".join(hashlib.sha1(body[at : at + segment.piece_length]).digest() for at in starts)


async def main(mode: str, directory: Path, image: Image) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    garbage = Garbage(image)
    garbage.pushes_hashes = mode == "hashes"
    async with open_swarm("0.0.0.0", SWARM_PORT) as engine, trio.open_nursery() as nursery:
        for blob in image.blobs:
            layout = Layout(blob.size)
            body = await trio.Path(image.path(blob.digest)).read_bytes()
            for segment in () if layout.is_small else layout.segments():
                wrong = random.randbytes(segment.length)
                right = body[segment.offset : segment.offset + segment.length]
                told = wrong if mode == "hashes" else right
                meta = SegmentMeta(blob.digest, blob.size, segment.index, piece_hashes(told, segment))
                path = trio.Path(directory / segment_name(meta))
                # Loaded with what fits the hashes: a file that does not is never given to anybody.
                await path.write_bytes(told)
                loaded = await engine.add(meta, Path(path), complete=False)
                assert loaded.is_complete
                async with await path.open("r+b") as file:
                    await file.write(wrong)
                garbage.metas[blob.digest, segment.index] = meta
        garbage.network = network = PeerNetwork(NODE_ID, SITE, SWARM_PORT, garbage)
        await nursery.start(network.run, "0.0.0.0", CONTROL_PORT)
        advertisement = Advertisement(NODE_ID, SITE, CONTROL_PORT, SWARM_PORT)
        await nursery.start(run_mdns, advertisement, network.add_address)
        say("ready")


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir()
    trio.run(main, sys.argv[1], Path(sys.argv[2]), Image.load(Path(sys.argv[3])))
