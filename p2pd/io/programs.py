"""Other programs of this machine: what version they are, and telling the service manager."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

from p2pd.model.errors import OurFault

__all__ = ["is_on_path", "run_program", "version_of"]

_VERSION = re.compile(r"\bv?(\d{1,4})\.(\d{1,4})\.")


def is_on_path(program: str) -> bool:
    return shutil.which(program) is not None


def run_program(command: Sequence[str], timeout: float = 120.0) -> str:
    """What a program says; raises OurFault when it is not there, fails, or takes too long. Blocks."""
    said = " ".join(command)
    try:
        done = subprocess.run(  # noqa: S603 - the commands are ours, without a shell
            command, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise OurFault(f"{said} did not end within {timeout:g} s: run it yourself") from error
    except OSError as error:
        raise OurFault(f"cannot run {said}: {error.strerror or error}; run it yourself") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise OurFault(f"{said} failed: {lines[-1]}")
    return done.stdout


def version_of(program: str) -> tuple[int, int] | None:
    """Major and minor number that `PROGRAM --version` tells; None where it tells none. Blocks."""
    try:
        match = _VERSION.search(run_program([program, "--version"], timeout=5))
    except OurFault:
        return None
    return (int(match[1]), int(match[2])) if match else None
