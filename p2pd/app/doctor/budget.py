"""Whether the store's limits, its disk and the images fit each other."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import trio

from p2pd.app.config import NodeConfig
from p2pd.app.doctor.finding import Finding, ok, warn
from p2pd.io.admin_client import AdminClient
from p2pd.model.errors import P2pdError
from p2pd.model.stock import DiskSpace, Limits

__all__ = ["Holdings", "check_budget", "judge_budget"]


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the running daemon tells: bytes held, and name and bytes of the largest image it has seen."""

    held: int
    largest: tuple[str, int] | None


async def check_budget(config: NodeConfig, file: str) -> list[Finding]:
    """Do the limits of the store, the disk and the images fit each other? `file` is the configuration's."""
    try:
        usage = await trio.to_thread.run_sync(shutil.disk_usage, config.node.state_dir)
    except OSError:
        return []  # told by check_disk
    holdings = await trio.to_thread.run_sync(_holdings, config)
    return judge_budget(config.store.limits, DiskSpace(usage.free, usage.total), holdings, file)


def _holdings(config: NodeConfig) -> Holdings | None:
    """None where the daemon does not run, or this user may not ask it. Blocks."""
    if not config.admin.socket:
        return None
    try:
        daemon = AdminClient(Path(config.admin.socket), "p2pd")
        held = int(daemon.get("/v1/status")["blob_bytes"])
        images = daemon.get("/v1/images")["images"]
    except P2pdError:
        return None
    sizes = [(f"{each['repository']}:{each['tag']}", int(each["size"])) for each in images]
    return Holdings(held, max(sizes, key=lambda image: image[1], default=None))


def judge_budget(limits: Limits, space: DiskSpace, holdings: Holdings | None, file: str) -> list[Finding]:
    kept_free, edit = (
        limits.min_free.of(space.total),
        f"${{EDITOR:-vi}} {shlex.quote(file)} && systemctl restart p2pd",
    )
    found = []
    if space.free < kept_free:
        says = f"{_gb(space.free)} free, and store.min_free asks for {_gb(kept_free)}: content goes at once"
        found.append(warn("budget", says, "p2pd gc --dry-run"))
    if limits.max_bytes and limits.max_bytes + kept_free > space.total:
        says = f"store.max_bytes of {_gb(limits.max_bytes)} and store.min_free of {_gb(kept_free)}"
        found.append(warn("budget", f"{says} are more than the disk's {_gb(space.total)}", edit))
    held, largest = (holdings.held, holdings.largest) if holdings is not None else (0, None)
    room = max(0, space.free + held - kept_free)
    is_bound = 0 < limits.max_bytes < room
    budget = limits.max_bytes if is_bound else room
    if largest is not None and budget < largest[1]:
        why = "store.max_bytes" if is_bound else "what the disk has above store.min_free"
        says = f"{largest[0]} has {_gb(largest[1])}, and {why} is {_gb(budget)}: it will not be kept whole"
        found.append(warn("budget", says, edit if is_bound else "df -h; p2pd images"))
    return found or [ok("budget", f"the store may come to {_gb(budget)}")]


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
