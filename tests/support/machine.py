"""A Debian machine that really boots systemd: systemd-nspawn on an overlay over a prepared root.

    this process --death signal--> unshare --mount: systemd-nspawn --> pid 1 of the machine

The overlay is mounted in a mount namespace of nspawn's, and both ends die with this process, so that
nothing outlives a test run but files below the directory that was given.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ["Machine", "booted", "missing_prerequisite", "wait_for"]

_BOOT_S = 60.0
_LOCK = Path(tempfile.gettempdir(), "p2pd-test-machine.lock")
_COMMANDS = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "nsenter": "util-linux",
    "x86_64-linux-gnu-strip": "binutils",
}

_BOOT = """
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
shift; directory=$1; shift
exec systemd-nspawn --quiet -D "$directory/root" -M p2pd-test --register=no --keep-unit --private-network \\
    --capability=all --system-call-filter=bpf "$@" --boot
"""


def missing_prerequisite() -> str | None:
    """One line about why no machine can be booted here; None when one can."""
    if os.geteuid() != 0:
        return "not root: systemd-nspawn needs it"
    if os.uname().machine != "x86_64":
        return f"the packages' tests are for x86_64 machines, and this is {os.uname().machine}"
    lacking = sorted({package for command, package in _COMMANDS.items() if shutil.which(command) is None})
    if lacking:
        return f"missing Debian packages: apt-get install {' '.join(lacking)}"
    if not (Path("/sys/fs/cgroup/unified").exists() or Path("/sys/fs/cgroup/cgroup.controllers").exists()):
        return "no cgroup v2 is mounted, and systemd needs one"
    probe = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if subprocess.run(probe, capture_output=True, timeout=10).returncode != 0:
        return "namespaces and mounts are not allowed here: run on a host or in a privileged container"
    return None


def wait_for(condition: Callable[[], object], what: str, within: float = 30.0) -> None:
    """Return once `condition()` is true; AssertionError with `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"waited {within:.0f} s for {what}"
        time.sleep(0.1)


class Machine:
    """A booted machine; `leader` is the process outside that is its pid 1."""

    def __init__(self, leader: int) -> None:
        self.leader = leader
        self.root = Path(f"/proc/{leader}/root")

    def command(self, *words: str | Path) -> list[str]:
        """What to run here to run `words` in the machine."""
        enter = ["nsenter", "-t", str(self.leader), "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w"]
        return [*enter, *map(str, words)]

    def run(self, *words: str | Path, check: bool = True, timeout: float = 60) -> str:
        """Output of a command; AssertionError with what it said when it fails."""
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=timeout, env=environment
        )
        assert done.returncode == 0 or not check, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def sh(self, script: str) -> str:
        """Output of a bash script."""
        return self.run("bash", "-euc", script)

    def install(self, package: Path) -> None:
        """dpkg -i as unattended updates do it, but without its syncs: no power fails here."""
        inside = Path("/root") / package.name
        shutil.copy(package, self.root / "root" / package.name)
        self.run("dpkg", "--force-unsafe-io", "--force-confold", "-i", inside)
        self.run("rm", inside)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "-P", name, unit).strip()

    def main_pid(self, unit: str) -> int:
        """As seen in the machine; 0 while it has none."""
        return int(self.show(unit, "MainPID"))

    def is_active(self, unit: str) -> bool:
        return self.show(unit, "ActiveState") == "active"

    def files(self) -> set[str]:
        """Every path of the machine's disk but what dpkg, the journal and caches keep."""
        found = self.run(
            "find", "/", "-xdev", "-not", "-path", "/var/lib/dpkg/*", "-not", "-path", "/var/log/*",
            "-not", "-path", "/var/cache/*", "-not", "-path", "/tmp/*", "-not", "-path", "/var/tmp/*",
        )  # fmt: skip
        return set(found.splitlines())


@contextlib.contextmanager
def booted(root: Path, directory: Path, binds: Sequence[str | Path] = ()) -> Iterator[Machine]:
    """Boot a machine with the files of `root`; what it writes goes to `directory`, and is removed.

    `binds` are paths of this machine that it sees, read-only. One machine at a time, also among test
    runs: nspawn gives each the same control group.
    """
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            with _booted(root, directory, binds) as machine:
                yield machine
        finally:
            _remove_cgroups()


@contextlib.contextmanager
def _booted(root: Path, directory: Path, binds: Sequence[str | Path]) -> Iterator[Machine]:
    for name in ("upper", "work", "root"):
        (directory / name).mkdir(parents=True)
    console = (directory / "console.log").open("wb")
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-ec", _BOOT, "sh", root, directory,
         *(f"--bind-ro={path}" for path in binds)],
        stdin=subprocess.DEVNULL, stdout=console, stderr=console,
        env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
    )  # fmt: skip
    try:
        machine = _wait_booted(process, directory / "console.log")
        try:
            yield machine
        finally:
            os.kill(machine.leader, signal.SIGRTMIN + 4)  # power off, as systemd(1) has it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
    finally:
        process.kill()
        process.wait()
        console.close()
        shutil.rmtree(directory, ignore_errors=True)


def _remove_cgroups() -> None:
    """nspawn leaves its (empty) control groups behind, below that of this process."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for mount in (controllers.removeprefix("name=") or "unified", ""):
            for name in ("payload", "supervisor"):
                top = Path("/sys/fs/cgroup", mount, path.lstrip("/"), name)
                groups = [top, *(found for found in top.rglob("*") if found.is_dir())] if top.exists() else []
                for group in sorted(groups, reverse=True):
                    with contextlib.suppress(OSError):
                        group.rmdir()


def _wait_booted(process: subprocess.Popen[bytes], console: Path) -> Machine:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def state() -> str:
        assert process.poll() is None, console.read_text(errors="replace")[-2000:]
        leaders = children.read_text().split()
        if not leaders:
            return ""
        return Machine(int(leaders[0])).run("systemctl", "is-system-running", check=False).strip()

    wait_for(lambda: state() in ("running", "degraded"), "the machine to boot", _BOOT_S)
    return Machine(int(children.read_text().split()[0]))
