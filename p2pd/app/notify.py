"""What the daemons tell the service manager: ready, a status line, still alive, stopping.

The protocol is that of sd_notify(3). Without NOTIFY_SOCKET in the environment nothing is sent.
The heartbeat comes from the event loop and from nowhere else: when the loop hangs the heartbeat
stops, and the service manager replaces the process.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Callable, Mapping

import sdnotify
import trio

__all__ = ["Notifier", "watchdog_seconds"]

STATUS_EVERY = 15.0
"""Seconds between two status lines where no watchdog asks for more."""

_SEND_WITHIN = 1.0


def watchdog_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """The silence, in seconds, after which the service manager ends the process `pid`; None for no limit."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    microseconds = int(text) if text.isascii() and text.isdecimal() else 0
    return microseconds / 1e6 if microseconds else None


class Notifier:
    """The line to the service manager that the environment names, if any; `run` uses it up."""

    def __init__(self) -> None:
        self._channel = _open_channel()
        self._watchdog = watchdog_seconds(os.environ, os.getpid())
        if self._watchdog is not None:
            # The watchdog ends a hung process by SIGABRT: this tells in the journal where it hung.
            faulthandler.enable()

    async def run(
        self, status: Callable[[], str], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Say READY with the status line, then both it and the heartbeat, until cancelled; then STOPPING."""
        task_status.started()
        if self._channel is None:
            return
        pause = STATUS_EVERY if self._watchdog is None else min(STATUS_EVERY, self._watchdog / 3)
        try:
            self._tell("READY=1", f"STATUS={status()}")
            while True:
                await trio.sleep(pause)
                self._tell("WATCHDOG=1", f"STATUS={status()}")
        finally:
            self._tell("STOPPING=1", "STATUS=stopping")
            self._channel.socket.close()
            self._channel = None

    def _tell(self, *lines: str) -> None:
        if self._channel is not None:
            self._channel.notify("\n".join(lines))


def _open_channel() -> sdnotify.SystemdNotifier | None:
    # Asked first, because without it sdnotify leaks a socket.
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    channel = sdnotify.SystemdNotifier()
    if channel.socket is None:
        return None
    # A service manager that does not read must not stop the loop.
    channel.socket.settimeout(_SEND_WITHIN)
    return channel
