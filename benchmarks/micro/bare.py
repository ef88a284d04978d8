"""`bare`: what p2pd adds to the CPU that the swarm alone costs: the same bytes through bare libtorrent."""

from __future__ import annotations

import argparse
import hashlib
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import libtorrent as lt

from benchmarks.machine import Load, LoadWatch, background_share
from benchmarks.measure import Scenario, measure_floor, measure_system
from benchmarks.outcome import Outcome, check_writable, scenario_of
from benchmarks.sizes import argument, parse_rate
from benchmarks.testbed import Image, Process, SiteSpec, Testbed, TestbedError
from benchmarks.testbed.network import SEEDER_IP, node_ip
from benchmarks.update import image_of, sensible_site
from p2pd.model.content import Descriptor

__all__ = ["add_arguments", "run", "write_torrent"]

_PORT = 6881
_PIECE = 1 << 20
_POLL_S = 0.1
_READY_S = 30.0
_PEER = Path(__file__).with_name("swarm_peer.py")
_LABELS = {
    "p2pd_ms_per_mb": "p2pd, CPU of a node, ms/MB",
    "bare_ms_per_mb": "bare libtorrent, ms/MB",
    "ratio": "p2pd / bare",
    "p2pd_s": "site updated by p2pd, s",
    "bare_s": "every peer of the bare swarm done, s",
    "bare_wan_ratio": "each byte crossed the WAN in the bare swarm, times",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Update a site with p2pd (warm seeder, containerd as client), then move the same bytes through a\n"
        "bare libtorrent swarm in the same testbed: no mirror, no control plane, no store; one seed where\n"
        "the seeder was, a torrent a layer, pieces of 1 MiB, libtorrent's own settings. Compared is the CPU\n"
        "of the p2pd process with that of the peer's process, both from /proc, mean of the nodes."
    )
    rate = argument(parse_rate, "25M (bit/s)")
    parser.add_argument("--nodes", type=int, default=8, help="nodes of the site (8)")
    parser.add_argument("--size", default="32M", help="size of a random image, or 'debian' (32M)")
    parser.add_argument("--layers", type=int, default=4, help="layers of a random image (4)")
    parser.add_argument("--wan", type=rate, default="16M", help="WAN, bit/s (16M)")
    parser.add_argument("--lan", type=rate, default="1G", help="LAN port of each node, bit/s (1G)")
    parser.add_argument("--repeat", type=int, default=1, help="how often (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def run(options: argparse.Namespace) -> int:
    """Raises TestbedError."""
    check_writable(options.json)
    image = image_of(options.size, options.layers)
    with sensible_site():
        spec = SiteSpec(
            options.nodes, options.wan, options.lan, disk_bytes=image.blob_bytes * 4 * (options.nodes + 3)
        )
    runs, loads = [], []
    with Testbed(spec) as bed:
        bed.start_origin()
        ref = bed.push(image)
        for _ in range(options.repeat):
            figures, found = _measure(bed, ref, image)
            runs.append(figures)
            loads += found
    return Outcome("bare", scenario_of(image, options.nodes, options.wan), _LABELS, runs, loads).finish(
        options.json
    )


def _measure(bed: Testbed, ref: str, image: Image) -> tuple[dict[str, float], list[Load]]:
    floor = measure_floor(bed, image)
    updated = measure_system(bed, ref, Scenario(image), "p2pd", floor)
    if not updated.verified or updated.cpu_s_per_node is None or updated.load is None:
        raise TestbedError(f"the update by p2pd failed: {' | '.join(updated.errors[:2])}")
    for node in bed.nodes:
        node.reset()
    bed.reset_seeder()
    swarm = _Swarm(bed, image)
    seconds, cpu_s, wan_bytes, load = swarm.run(60 + 8 * floor.seconds)
    megabytes = image.blob_bytes / 1e6
    p2pd, bare = (1000 * cpu / megabytes for cpu in (updated.cpu_s_per_node, cpu_s))
    figures = {
        "p2pd_ms_per_mb": p2pd,
        "bare_ms_per_mb": bare,
        "ratio": p2pd / bare,
        "p2pd_s": updated.site_s,
        "bare_s": seconds,
        "bare_wan_ratio": wan_bytes / floor.wan_bytes,
    }
    return figures, [updated.load, load]


class _Swarm:
    """A peer on each node, and one seed beyond the WAN; each knows all the others."""

    def __init__(self, bed: Testbed, image: Image) -> None:
        self._bed = bed
        self._layers = [blob for blob in image.blobs if blob.size > _PIECE] or list(image.blobs)
        torrents = bed.outer.site / "torrents"
        bed.outer.outside(torrents).mkdir(exist_ok=True)
        self._files = [torrents / f"{blob.digest.hex}.torrent" for blob in self._layers]
        content = image.path(self._layers[0].digest).parent
        for blob, file in zip(self._layers, self._files, strict=True):
            write_torrent(image.path(blob.digest), bed.outer.outside(file))
        self._seed = self._peer("seeder", content, [])
        others = [f"{SEEDER_IP}:{_PORT}", *(f"{node_ip(node.index)}:{_PORT}" for node in bed.nodes)]
        self._peers = []
        for node in bed.nodes:
            folder = node.home / "swarm"
            bed.outer.outside(folder).mkdir()
            known = [peer for peer in others if peer != f"{node.ip}:{_PORT}"]
            self._peers.append(self._peer(node.name, folder, known))

    def run(self, timeout: float) -> tuple[float, float, int, Load]:
        """Seconds until all have all, mean CPU seconds of a peer, WAN bytes, load. Ends the peers."""
        everyone = [self._seed, *self._peers]
        try:
            self._await(everyone, "ready", _READY_S)
            self._seed.send(signal.SIGUSR1)
            background = background_share(1.0)
            wan, cpu = self._bed.wan_bytes(), sum(peer.usage().cpu_s for peer in self._peers)
            watch, begun = LoadWatch(background), time.monotonic()
            for peer in self._peers:
                peer.send(signal.SIGUSR1)
            self._await(self._peers, "done", timeout, watch)
            seconds = time.monotonic() - begun
            spent = sum(peer.usage().cpu_s for peer in self._peers) - cpu
            counted = (self._bed.wan_bytes() - wan).down
            load = watch.finish()
            self._verify()
        finally:
            for peer in everyone:
                peer.kill()
        return seconds, spent / len(self._peers), counted, load

    def _peer(self, host: str, folder: Path, known: Sequence[str]) -> Process:
        command: list[str | Path] = [sys.executable, _PEER, f"0.0.0.0:{_PORT}", folder, ",".join(known)]
        log = self._bed.outer.site / host / "swarm.log"
        return self._bed.outer.popen([*command, *self._files], host, log=log)

    def _await(
        self, peers: Sequence[Process], word: str, timeout: float, watch: LoadWatch | None = None
    ) -> None:
        deadline = time.monotonic() + timeout
        while waiting := [peer for peer in peers if peer.last_words(1) != word]:
            for peer in waiting:
                if not peer.is_running or time.monotonic() > deadline:
                    raise TestbedError(f"bare swarm: {peer.name} is not {word}: {peer.last_words()}")
            if watch is not None:
                watch.sample()
            time.sleep(_POLL_S)

    def _verify(self) -> None:
        """The bytes must be there: a swarm that moved less would look cheap."""
        for node in self._bed.nodes:
            for blob in self._layers:
                if not _is_right(node.files / "swarm" / blob.digest.hex, blob):
                    raise TestbedError(f"bare swarm: {node.name} has wrong bytes of {blob.digest}")


def write_torrent(content: Path, torrent: Path) -> None:
    """A version 1 torrent of one file."""
    files = lt.file_storage()
    files.add_file(content.name, content.stat().st_size)
    made = lt.create_torrent(files, _PIECE, lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, str(content.parent))
    torrent.write_bytes(lt.bencode(made.generate()))


def _is_right(path: Path, blob: Descriptor) -> bool:
    with path.open("rb") as body:
        return hashlib.file_digest(body, "sha256").hexdigest() == blob.digest.hex
