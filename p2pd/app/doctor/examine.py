"""All checks, in the order in which one explains the next."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import trio

from p2pd.app.config import NodeConfig
from p2pd.app.doctor.budget import check_budget
from p2pd.app.doctor.finding import Finding, warn
from p2pd.app.doctor.lan import check_lan
from p2pd.app.doctor.machine import check_disk, check_ports, check_runtimes, judge_clock
from p2pd.app.doctor.wan import check_blob, check_mirror, check_wan, default_image
from p2pd.app.runtimes.draft import Files

__all__ = ["examine"]


async def examine(
    config: NodeConfig,
    files: Files,
    is_present: Callable[[str], bool],
    *,
    image: str | None,
    option: str,
    file: str,
) -> AsyncGenerator[Finding, None]:
    """Findings as they come. `image` is what to pull, None for a small public one.

    `file` is the configuration's path, `option` what p2pd's commands need to find the same configuration;
    `is_present` tells whether a program is on the PATH.
    """
    for warning in config.warnings():
        yield warn("config", warning, f"p2pd config show{option}")
    mirror, found = await check_mirror(config)
    found += await check_ports(config, is_running=mirror is not None)
    for each in found:
        yield each
    for each in await check_lan(config, mirror.peers if mirror else None, is_present):
        yield each
    skews, found = await check_wan(config)
    for each in [*found, *judge_clock(skews), *await check_disk(config)]:
        yield each
    for each in await check_budget(config, file):
        yield each
    for each in await trio.to_thread.run_sync(check_runtimes, config, files, is_present, option):
        yield each
    if mirror is None:
        yield warn("pull", "not tried: the daemon is down")
        return
    for each in await check_blob(config, image or default_image(config)):
        yield each
