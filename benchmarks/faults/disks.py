"""Rows: the disk of a node, or the seeder's, rots, fills up, or takes no more writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.row import Limits, Row
from benchmarks.faults.stage import Stage
from benchmarks.testbed import Node
from benchmarks.testbed.live_site import log_events
from p2pd.io.segment_files import segment_path

__all__ = ["ROWS"]

_ROOM = "24m"
"""Room on the full disks: less than the image, more than one of its two layers."""

_UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Root for whom the modes of files count."""


def _largest(stage: Stage, node: Node) -> Path:
    blob = max(stage.image.blobs, key=lambda blob: blob.size)
    place = node.files / "p2pd" / "store" / "blobs" / "sha256" / blob.digest.hex[:2] / blob.digest.hex
    return segment_path(place, blob.size, 0)


def _rotten(spoil: Callable[[Path], None]) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        node = stage.nodes[1]
        stage.start()
        stage.update()
        spoil(_largest(stage, node))
        stage.forget_content(node)
        stage.update(nodes=[node])
        stage.expect(bool(log_events(node.p2pd, "blob.lost")), "it was not noticed")
        _still_up(stage, node)

    return play


def _still_up(stage: Stage, node: Node) -> None:
    stage.expect(node.p2pd is not None and node.p2pd.is_running, f"the daemon of {node.name} ended")


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def _truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def _read_only(stage: Stage) -> None:
    node = stage.nodes[1]
    store = node.home / "p2pd" / "store"
    stage.start()

    def seal() -> None:
        stage.when(0.3, node)
        seal = f"mount --bind {store} {store}; mount -o remount,bind,ro {store}"
        node.in_its_mounts(f"{seal}; if touch {store}/probe; then echo still writable >&2; exit 1; fi")

    stage.update(seal, timed=stage.others(node))
    _still_up(stage, node)
    node.in_its_mounts(f"umount -l {store}")
    stage.forget_content(node)
    stage.update(nodes=[node])


def _permission_lost(stage: Stage) -> None:
    node = stage.nodes[1]
    stage.start(stage.others(node))
    node.start_containerd()
    node.use_mirror(stage.mirror)
    node.start_p2pd(wrapper=_UNPRIVILEGED)
    node.wait_containerd()
    node.wait_p2pd()
    stage.site.wait_acquainted()
    places = [
        node.files / "p2pd" / "store" / name for name in ("partial", "staging", "scratch", "blobs/sha256")
    ]

    def lose() -> None:
        stage.when(0.3, node)
        for place in places:
            place.chmod(0)

    stage.update(lose, timed=stage.others(node))
    _still_up(stage, node)
    for place in places:
        place.chmod(0o755)
    stage.forget_content(node)
    stage.update(nodes=[node])


def _full_node(stage: Stage) -> None:
    node = stage.nodes[1]
    place = node.home / "p2pd"
    stage.start(stage.others(node))
    node.start_containerd()
    node.use_mirror(stage.mirror)
    (node.files / "p2pd").mkdir()
    stage.bed.outer.run(["mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "tmpfs", place])
    stage.defer(lambda: _unmounted(stage, node, place))
    node.start_p2pd()
    node.wait_containerd()
    node.wait_p2pd()
    stage.site.wait_acquainted()
    stage.update(timed=stage.others(node))
    _still_up(stage, node)


def _unmounted(stage: Stage, node: Node, place: Path) -> None:
    node.kill()
    stage.bed.outer.run(["umount", "-l", place])


def _full_seeder(stage: Stage) -> None:
    place = stage.bed.outer.site / "seeder" / "state"
    stage.bed.reset_seeder()
    stage.bed.outer.outside(place).mkdir()
    stage.bed.outer.run(["mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "tmpfs", place])
    stage.bed.start_seeder()

    def unmount() -> None:
        assert stage.bed.seeder is not None
        stage.bed.seeder.kill()
        stage.bed.outer.run(["umount", "-l", place])
        stage.bed.reset_seeder()

    stage.defer(unmount)
    stage.start()
    stage.update()
    seeder = stage.bed.seeder
    stage.expect(seeder is not None and seeder.is_running, "the seeder ended")


_NOTICED = "noticed before delivery, dropped, fetched again"
_STAYS = "the daemon stays up, pulls fall through"

ROWS = [
    Row("store-bit", "a bit of a held blob flips", _NOTICED, _rotten(_flip), in_suite=True),
    Row("store-short", "the file of a held blob is truncated", _NOTICED, _rotten(_truncate)),
    Row("store-gone", "the file of a held blob is deleted", _NOTICED, _rotten(Path.unlink)),
    Row("store-read-only", "the file system turns read-only in mid-pull", _STAYS, _read_only, Limits(1.2)),
    Row(
        "store-permission",
        "permission on the store is lost in mid-pull",
        _STAYS,
        _permission_lost,
        Limits(1.2),
    ),
    Row("disk-full", "a node's disk is full in mid-pull", _STAYS, _full_node, Limits(1.2)),
    Row(
        "seeder-disk-full",
        "the seeder's disk is full in mid-pull",
        "pulls end",
        _full_seeder,
        Limits(1.25, 15.0),
    ),
]
