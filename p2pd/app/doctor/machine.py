"""What is on this machine: ports, disk, clock, the runtime's configuration."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from p2pd.app.config import NodeConfig
from p2pd.app.doctor.finding import Finding, fail, ok, warn
from p2pd.app.runtimes.draft import Files
from p2pd.app.runtimes.manage import RUNTIMES, mirror_of, plan_install, plan_remove
from p2pd.io.probes import DiskFacts, bind_error, connect_error, disk_facts
from p2pd.io.programs import version_of
from p2pd.model.address import Address
from p2pd.model.errors import ConfigError

__all__ = ["check_disk", "check_ports", "check_runtimes", "judge_clock", "judge_disk"]

_TIGHT, _FULL = 5_000_000_000, 500_000_000
_SLOW = 20_000_000
_SKEW_TOLD, _SKEW_BAD = 60.0, 3600.0


async def check_ports(config: NodeConfig, *, is_running: bool) -> list[Finding]:
    """The ports other nodes need: open where the daemon runs, free where it does not."""
    control = config.lan.control
    ports = {"control": control, "swarm": Address(control.host, config.lan.swarm_port)}
    if not is_running:
        ports["mirror"] = config.mirror.listen
    found = []
    for name, address in ports.items():
        if address.port == 0:
            continue
        if is_running:
            found.append(await _is_open(name, address))
        else:
            error = await trio.to_thread.run_sync(bind_error, address.host, address.port)
            found.append(_is_free(name, address, error))
    return found


async def _is_open(name: str, address: Address) -> Finding:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - compared with
    error = await connect_error(host, address.port)
    if error is None:
        return ok("ports", f"{name} port {address} is open")
    return fail(
        "ports", f"{name} port {address} does not answer: {error}", "journalctl -u p2pd -n 50 --no-pager"
    )


def _is_free(name: str, address: Address, error: OSError | None) -> Finding:
    if error is None:
        return ok("ports", f"{name} port {address} is free")
    if error.errno == errno.EADDRINUSE:
        return fail(
            "ports",
            f"{name} port {address} is taken by another program",
            f"ss -ltnp 'sport = :{address.port}'",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return fail("ports", f"{name} address {address} is none of this machine's", "ip -brief address")
    return fail(
        "ports", f"cannot listen on {name} port {address}: {error.strerror or error}", "p2pd config show"
    )


async def check_disk(config: NodeConfig) -> list[Finding]:
    state_dir = Path(config.node.state_dir)
    try:
        facts = await trio.to_thread.run_sync(disk_facts, state_dir)
    except FileNotFoundError:
        return [warn("disk", f"{state_dir} is not there yet: the daemon makes it at its first start")]
    except OSError as error:
        return [warn("disk", f"{state_dir} was not looked at: {error.strerror}; run this as root")]
    return judge_disk(facts, config.node.state_dir)


def judge_disk(facts: DiskFacts, path: str) -> list[Finding]:
    left = f"{facts.free / 1e9:.1f} GB of {facts.total / 1e9:.1f} GB free for {path}"
    look = f"du -xh --max-depth=2 {path} | sort -h | tail"
    if facts.free < _FULL:
        found = [fail("disk", f"{left}: transfers fail", look)]
    elif facts.free < min(_TIGHT, facts.total // 10):
        found = [warn("disk", f"{left}: little for images", look)]
    else:
        found = [ok("disk", left)]
    if facts.write_rate is None:
        return [*found, warn("disk", f"write speed was not tried: {facts.error}")]
    speed = f"writes {facts.write_rate / 1e6:.0f} MB/s durably"
    if facts.write_rate < _SLOW:
        return [*found, warn("disk", f"{speed}: slower than most LANs", "iostat -x 1 5")]
    return [*found, ok("disk", speed)]


def judge_clock(skews: Mapping[str, float]) -> list[Finding]:
    """`skews` are how many seconds this machine is ahead of others, by their names."""
    if not skews:
        return [warn("clock", "nobody told the time: not checked", "timedatectl status")]
    name, skew = min(skews.items(), key=lambda item: abs(item[1]))
    way = "ahead of" if skew > 0 else "behind"
    says = f"{abs(skew):.0f} s {way} {name}"
    if abs(skew) >= _SKEW_BAD:
        return [fail("clock", f"{says}: TLS certificates and tokens are refused", "timedatectl set-ntp true")]
    if abs(skew) >= _SKEW_TOLD:
        return [warn("clock", says, "timedatectl set-ntp true")]
    return [ok("clock", f"agrees with {name} within {max(1, round(abs(skew)))} s")]


def check_runtimes(
    config: NodeConfig, files: Files, is_present: Callable[[str], bool], option: str
) -> list[Finding]:
    """Each container runtime on the PATH: does it pull through the mirror at its port? Blocks.

    `option` is what p2pd's commands need to find the same configuration.
    """
    mirror = mirror_of(config)
    found = []
    for runtime in RUNTIMES.values():
        if not is_present(runtime.program):
            continue
        command = f"p2pd runtime install {runtime.name}{option}"
        try:
            plan = plan_install(runtime.name, files, mirror, version_of(runtime.program))
            is_old = bool(plan_remove(runtime.name, files, mirror).changes)
        except ConfigError as error:
            found.append(warn("runtime", str(error)))
            continue
        if plan.refusals:
            found += [
                warn("runtime", f"{runtime.name}: {line}", f"{command} --dry-run") for line in plan.refusals
            ]
        elif not plan.changes:
            names = ", ".join(route.registry for route in plan.routes)
            found.append(ok("runtime", f"{runtime.name} pulls through {mirror.url}: {names}"))
        elif is_old:
            says = f"{runtime.name} is told of another port or other registries than p2pd has"
            found.append(fail("runtime", says, command))
        else:
            found.append(warn("runtime", f"{runtime.name} does not pull through p2pd", command))
    if not found:
        return [warn("runtime", "no container runtime was found on the PATH")]
    return found
