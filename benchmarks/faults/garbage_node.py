"""A node turned to garbage, as a process: `python -m benchmarks.faults.garbage_node MODE DIRECTORY IMAGE`.

It speaks the real protocol and says that it holds every blob of IMAGE (an OCI layout), but

* mode "hashes": offers wrong piece hashes, and swarms of garbage that fit them;
* mode "pieces": knows the right piece hashes, and gives garbage in their place over the swarm;
* mode "have": knows the right piece hashes, says that its swarms are loaded, and has none;
* mode "good": has everything and gives it (for a link that drips);
* mode "tag": as "have", and makes itself the owner of app:v1, of which it tells a lie;
* modes "newer" and "older": speaks another version of the protocol.

In all but "good" it answers Read with garbage and Fetch with a size whose bytes are garbage.
"""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import structlog
import trio

from benchmarks.testbed import Image
from benchmarks.testbed.node import ORIGIN
from p2pd.decide.ownership import object_key, ranked
from p2pd.io.mdns import Advertisement, run_mdns
from p2pd.io.peers import PeerNetwork
from p2pd.io.swarm import LibtorrentSwarm, open_swarm
from p2pd.model.content import OCI_MANIFEST, Descriptor
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
    Resolve,
    Resolved,
    SegmentReady,
    Want,
    WantReply,
)
from p2pd.model.reference import Digest
from p2pd.ports.peers import Peer
from p2pd.ports.swarm import segment_name
from p2pd.wire import codec

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
        self.lie: Descriptor | None = None
        self.bodies: dict[Digest, bytes] = {}

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
            case Read(digest=digest, offset=offset, length=length) if digest in self.bodies:
                return ReadReply(self.bodies[digest][offset : offset + length])
            case Read(length=length):
                return ReadReply(random.randbytes(length))
            case Resolve(upstream=True) if self.lie is not None:
                return Resolved(self.lie)
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


async def _load(
    engine: LibtorrentSwarm, meta: SegmentMeta, path: trio.Path, told: bytes, given: bytes
) -> None:
    """Load a swarm with bytes that fit the hashes, a file of others never being given to anybody."""
    await path.write_bytes(told)
    loaded = await engine.add(meta, Path(path), complete=False)
    assert loaded.is_complete
    async with await path.open("r+b") as file:
        await file.write(given)


def _owner_of_tag() -> str:
    """An id that comes before all others in the rank of the tag, as far as luck allows."""
    ids = [f"bad0{number:028x}" for number in range(2000)]
    return ranked(object_key(f"tag {ORIGIN}/app:v1"), ids)[0]


async def main(mode: str, directory: Path, image: Image) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    garbage = Garbage(image)
    garbage.pushes_hashes = mode == "hashes"
    node_id = _owner_of_tag() if mode == "tag" else NODE_ID
    if mode == "tag":
        garbage.lie = Descriptor(Digest("0" * 64), 1234, OCI_MANIFEST)
    vars(codec)["PROTOCOL_VERSION"] += {"newer": 1, "older": -1}.get(mode, 0)
    if mode == "good":
        contents = {blob.digest: image.path(blob.digest).read_bytes() for blob in image.content}
        garbage.bodies = contents
    async with open_swarm("0.0.0.0", SWARM_PORT) as engine, trio.open_nursery() as nursery:
        for blob in image.blobs:
            layout = Layout(blob.size)
            body = await trio.Path(image.path(blob.digest)).read_bytes()
            for segment in () if layout.is_small else layout.segments():
                wrong = random.randbytes(segment.length)
                right = body[segment.offset : segment.offset + segment.length]
                told = wrong if mode == "hashes" else right
                given = right if mode == "good" else wrong
                meta = SegmentMeta(blob.digest, blob.size, segment.index, piece_hashes(told, segment))
                if mode in {"hashes", "pieces", "good"}:
                    await _load(engine, meta, trio.Path(directory / segment_name(meta)), told, given)
                garbage.metas[blob.digest, segment.index] = meta
        garbage.network = network = PeerNetwork(node_id, SITE, SWARM_PORT, garbage)
        await nursery.start(network.run, "0.0.0.0", CONTROL_PORT)
        advertisement = Advertisement(node_id, SITE, CONTROL_PORT, SWARM_PORT)
        await nursery.start(run_mdns, advertisement, network.add_address)
        say("ready")


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir()
    trio.run(main, sys.argv[1], Path(sys.argv[2]), Image.load(Path(sys.argv[3])))
