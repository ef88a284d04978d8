"""The outer set of namespaces that holds a whole testbed, so that nothing outlives it.

    this process --pipe--> guard (host): unshare …; rm -rf work directory
                              `-- pid 1 of the outer namespaces: cat, until the pipe's end

The pipe is the leash. When this process ends, by whatever signal, `cat` sees the end of its input;
with pid 1 the kernel kills every process of the testbed, with the last of them go the network and
mount namespaces, and the guard then removes the work directory. Should the guard be killed too,
the next start removes the directory: its lock is free.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from benchmarks.testbed.process import Process

__all__ = ["Outer", "TestbedError", "missing_prerequisite"]

T = TypeVar("T")

PREFIX = "p2pd-testbed-"

_CLONE_NEWNET = 0x40000000
_START_S = 10.0
_REMOVE_S = 600.0
"""A large layer leaves fifty gigabytes to remove, and what was measured is told only afterwards."""
_COMMANDS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "tc": "iproute2",
    "containerd": "containerd",
    "ctr": "containerd",
    "docker-registry": "docker-registry",
    "curl": "curl",
}

# Before /proc is mounted anew it is still the host's, and so is the pid that the shell reads there.
_INIT = """
set -e
read -r pid _ </proc/self/stat
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir /run/netns
mkdir "$1/site"
if [ "$2" = memory ]; then mount -t tmpfs -o size=90%,huge=always tmpfs "$1/site"; fi
ip link set lo up
echo "$pid" >"$1/pid.new"
mv "$1/pid.new" "$1/pid"
exec cat >/dev/null
"""

_GUARD = """
unshare --mount --pid --net --fork --kill-child sh -c "$2" sh "$1" "$3" 2>"$1/guard.log"
[ ! -e "$1/pid" ] || rm -rf --one-file-system -- "$1"
"""


class TestbedError(Exception):
    """The testbed, or something in it, could not be started. One line: what, why, what next."""

    __test__ = False


def missing_prerequisite() -> str | None:
    """One line about what this machine lacks and how to get it; None when a testbed can be built."""
    if os.geteuid() != 0:
        return "not root: network namespaces need it; run this as root"
    lacking = sorted({package for command, package in _COMMANDS.items() if shutil.which(command) is None})
    if lacking:
        return f"not installed: {' '.join(lacking)}; run make setup (or apt-get install {' '.join(lacking)})"
    probe = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "true"]
    done = subprocess.run(probe, capture_output=True, check=False)
    if done.returncode != 0:
        why = done.stderr.decode(errors="replace").strip()
        return f"no namespaces here ({why}); run on a host, or in a container with --privileged"
    return None


class Outer:
    """Mount, pid and network namespaces with a work directory; closes without a trace."""

    def __init__(self, *, in_memory: bool) -> None:
        _remove_stale()
        self.work = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = _lock(self.work)
        self._processes: list[Process] = []
        guard_input, self._leash = os.pipe()
        try:
            self._guard = subprocess.Popen(
                ["sh", "-c", _GUARD, "sh", str(self.work), _INIT, "memory" if in_memory else "disk"],
                stdin=guard_input,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt at the terminal is for this process alone
            )
        finally:
            os.close(guard_input)
        try:
            self.pid = self._wait_pid()
        except BaseException:
            self.close()
            raise

    @property
    def site(self) -> Path:
        """Directory for everything of the site, as processes inside see it."""
        return self.work / "site"

    def outside(self, path: Path) -> Path:
        """The same file as this process sees it: it may lie on a mount of the inside."""
        return Path(f"/proc/{self.pid}/root{path}")

    def popen(
        self,
        argv: Sequence[str | Path],
        host: str | None = None,
        *,
        log: Path | None = None,
        gated: bool = False,
        cwd: Path | None = None,
    ) -> Process:
        """Start a process, in the network namespace of `host`; `log` is an inside path.

        A gated one waits for `Process.release`, so that many can be made to begin at one instant.
        """
        command = [str(part) for part in argv]
        if cwd is not None:
            command = ["env", "-C", str(cwd), *command]
        if gated:
            command = ["sh", "-c", 'read -r _; exec "$@" </dev/null', "sh", *command]
        seen = self.outside(log) if log is not None else None
        output: IO[bytes] | int = seen.open("ab") if seen is not None else subprocess.DEVNULL
        try:
            popen = subprocess.Popen(
                [*self._enter(host), *command],
                stdin=subprocess.PIPE if gated else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
            )
        finally:
            if not isinstance(output, int):
                output.close()
        process = Process(popen, f"{Path(str(argv[0])).name} on {host}", seen)
        self._processes.append(process)
        return process

    def run(
        self,
        argv: Sequence[str | Path],
        host: str | None = None,
        *,
        text: str | None = None,
        timeout: float = 60.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end with `text` as input; raises TestbedError on failure unless `check` is false."""
        command = [str(part) for part in argv]
        try:
            done = subprocess.run(
                [*self._enter(host), *command],
                input=text or "",
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TestbedError(
                f"{command[0]} on {host or 'the testbed'}: no end after {timeout} s"
            ) from error
        if check and done.returncode != 0:
            why = " | ".join(done.stderr.strip().splitlines()[-2:]) or f"exit code {done.returncode}"
            raise TestbedError(f"{command[0]} on {host or 'the testbed'} failed: {why}")
        return done

    def inside(self, host: str, call: Callable[[], T]) -> T:
        """Run `call` in a thread of this process whose sockets belong to `host`."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def body() -> None:
            try:
                _set_network(Path(f"/proc/{self.pid}/root/run/netns/{host}"))
                outcome.append(call())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=body, name=f"inside-{host}", daemon=True)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def close(self) -> None:
        """End every process inside, and wait until processes, namespaces and directory are gone."""
        if self._leash < 0:
            return
        os.close(self._leash)
        self._leash = -1
        try:
            self._guard.wait(_REMOVE_S)
        finally:
            for process in self._processes:
                process.abandon()
            shutil.rmtree(self.work, ignore_errors=True)
            os.close(self._lock)

    def _enter(self, host: str | None) -> list[str]:
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", "--"]
        # `ip netns exec` also gives a fitting /sys, and a mount namespace that dies with the process.
        return enter if host is None else [*enter, "ip", "netns", "exec", host]

    def _wait_pid(self) -> int:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                return int((self.work / "pid").read_text())
            if self._guard.poll() is not None:
                break
            time.sleep(0.005)
        with contextlib.suppress(FileNotFoundError):
            why = " | ".join((self.work / "guard.log").read_text().strip().splitlines())
            raise TestbedError(f"the testbed's namespaces did not start: {why or 'no answer'}")
        raise TestbedError("the testbed's namespaces did not start: its directory is gone")


def _lock(directory: Path) -> int:
    descriptor = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _remove_stale() -> None:
    """Remove the work directories of runs that were killed together with their guard."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(descriptor)


def _set_network(namespace: Path) -> None:
    libc: Any = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(namespace))
    finally:
        os.close(descriptor)
