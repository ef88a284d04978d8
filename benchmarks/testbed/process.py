"""One process inside the testbed, and what the kernel accounts to it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "Usage"]

_TICKS = os.sysconf("SC_CLK_TCK")
_POLL_S = 0.005
_MEMORY = ("VmHWM", "VmRSS", "RssAnon")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a live process has used so far: CPU seconds (user + system, all threads) and memory in bytes.

    `peak_rss` is the kernel's VmHWM: the most that was ever resident, pages of mapped files (code,
    libraries) included. `rss` and `anon` are of this moment: all that is resident, and RssAnon, what
    the process itself has allocated.
    """

    cpu_s: float
    peak_rss: int
    rss: int
    anon: int


class Process:
    """A process started through `nsenter`, which waits for it and ends as it ended.

    Signals go to the process itself, found as the one child of nsenter: nsenter passes none on.
    """

    def __init__(self, popen: subprocess.Popen[bytes], name: str, log: Path | None = None) -> None:
        self._popen = popen
        self.name = name
        self.log = log

    @property
    def returncode(self) -> int | None:
        """Exit code, negative signal number, or None while it runs."""
        return self._popen.poll()

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    @property
    def pid(self) -> int:
        """Its process id as the host sees it; raises ProcessLookupError once it has ended."""
        children = Path(f"/proc/{self._popen.pid}/task/{self._popen.pid}/children")
        while self._popen.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                if found := children.read_text().split():
                    return int(found[0])
            time.sleep(_POLL_S)
        raise ProcessLookupError(f"{self.name} has ended with code {self._popen.returncode}")

    def send(self, number: int) -> None:
        """Send a signal; one that has ended is left alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        if number in (signal.SIGCONT, signal.SIGKILL):
            # nsenter stopped itself when its child was stopped, and would not see it end.
            self._popen.send_signal(signal.SIGCONT)

    def release(self) -> None:
        """Write the line that a process started behind a gate waits for."""
        if self._popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.write(b"\n")
                self._popen.stdin.close()

    def wait(self, timeout: float | None = None) -> int:
        """Exit code; raises TimeoutError after `timeout` seconds."""
        if timeout is not None and self._popen.returncode is None:
            # Popen.wait would look every 50 ms, too coarse for a stop watch.
            watch = os.pidfd_open(self._popen.pid)
            try:
                if not select.select([watch], [], [], timeout)[0]:
                    raise TimeoutError(f"{self.name} has not ended after {timeout} s")
            finally:
                os.close(watch)
        return self._popen.wait()

    def stop(self, grace: float = 5.0) -> int:
        """SIGTERM, and SIGKILL after `grace` seconds; the exit code."""
        self.send(signal.SIGTERM)
        try:
            return self.wait(grace)
        except TimeoutError:
            return self.kill()

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send `number` and wait for the end."""
        self.send(number)
        return self.wait(10)

    def usage(self) -> Usage:
        """Read from /proc; raises ProcessLookupError once it has ended."""
        pid = self.pid
        try:
            # The command name, in brackets, may hold spaces.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError as error:
            raise ProcessLookupError(f"{self.name} has ended") from error
        sizes = {line.partition(":")[0]: line.split() for line in status.splitlines() if line.endswith(" kB")}
        peak, rss, anon = (int(sizes[name][1]) * 1024 if name in sizes else 0 for name in _MEMORY)
        return Usage((int(fields[11]) + int(fields[12])) / _TICKS, peak, rss, anon)

    def last_words(self, lines: int = 3) -> str:
        """The end of its log, in one line."""
        if self.log is None or not self.log.exists():
            return ""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])

    def abandon(self) -> None:
        """Collect it after its namespaces are gone."""
        if self._popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.close()
        self._popen.send_signal(signal.SIGCONT)
        self._popen.wait(10)
