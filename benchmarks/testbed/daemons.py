"""Starting this project's daemons and other services: configuration out, readiness in."""

from __future__ import annotations

import http.client
import json
import sys
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.testbed.namespaces import Outer, TestbedError
from benchmarks.testbed.process import Process

__all__ = ["Config", "check_alive", "start_daemon", "toml", "wait_http"]

Config = Mapping[str, Mapping[str, object]]
"""TOML tables by name; the one named "" is the top level and comes first."""

READY_S = 30.0
POLL_S = 0.02


def toml(config: Config) -> str:
    """TOML of strings, numbers, booleans and lists of them: there JSON's spelling is TOML's."""
    lines: list[str] = []
    for table, values in config.items():
        if table:
            lines += ["", f"[{table}]"]
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def start_daemon(
    outer: Outer, host: str, command: str, config: Config, changes: Config | None, wrapper: Sequence[str] = ()
) -> Process:
    """Start `COMMAND run --config …` of this checkout's environment on `host`, below its home directory.

    `changes` replaces or adds keys; a value of None takes the key away. `wrapper` is a command, with
    arguments, that executes the daemon in another setting, such as setpriv.
    """
    merged = {table: dict(values) for table, values in config.items()}
    for table, values in (changes or {}).items():
        merged.setdefault(table, {}).update(values)
    merged = {table: {k: v for k, v in values.items() if v is not None} for table, values in merged.items()}
    program = Path(sys.executable).with_name(command)
    if not program.exists():
        raise TestbedError(f"{program} is missing: run make setup, and use .venv/bin/python")
    home = outer.site / host
    outer.outside(home / f"{command}.toml").write_text(toml(merged))
    arguments: list[str | Path] = [*wrapper, program, "run", "--config", home / f"{command}.toml"]
    return outer.popen(arguments, host, log=home / f"{command}.log", cwd=home)


def wait_http(outer: Outer, host: str, url: str, process: Process | None, within: float = READY_S) -> None:
    """Wait until a GET of `url` on `host` is answered 200; raises TestbedError."""
    deadline = time.monotonic() + within
    outer.inside(host, lambda: _poll(url, process, deadline))


def check_alive(process: Process | None, deadline: float) -> None:
    """Raise TestbedError when a service that is waited for cannot come any more."""
    if process is None:
        raise TestbedError("waited for a service that was not started")
    if not process.is_running:
        raise TestbedError(f"{process.name} ended with code {process.returncode}: {process.last_words()}")
    if time.monotonic() > deadline:
        raise TestbedError(f"{process.name} is not ready: {process.last_words() or 'it says nothing'}")


def _poll(url: str, process: Process | None, deadline: float) -> None:
    parts = urllib.parse.urlsplit(url)
    while True:
        connection = http.client.HTTPConnection(parts.netloc, timeout=2)
        try:
            connection.request("GET", parts.path)
            if connection.getresponse().status == http.client.OK:
                return
        except (OSError, http.client.HTTPException):
            pass  # not there yet
        finally:
            connection.close()
        check_alive(process, deadline)
        time.sleep(POLL_S)
