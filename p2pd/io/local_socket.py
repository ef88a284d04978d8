"""A Unix socket that only its owner and one group may use, and that is gone when its server is."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import trio

from p2pd.model.errors import ConfigError

__all__ = ["listening"]

log = structlog.get_logger()

_MODE = 0o660
_BACKLOG = 64


@contextmanager
def listening(path: Path, group: str) -> Iterator[trio.SocketListener]:
    """Listen at `path`, for this user and, where that group exists, for `group`.

    The socket appears under its name with its rights already set, in place of one that nobody
    listens at. Raises ConfigError where that cannot be, or where somebody does.
    """
    sock = _bound(path, group)
    here = path.stat()
    try:
        yield trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    finally:
        sock.close()
        with contextlib.suppress(OSError):
            found = path.stat()
            if (found.st_dev, found.st_ino) == (here.st_dev, here.st_ino):
                path.unlink()


def _bound(path: Path, group: str) -> socket.socket:
    _refuse_if_used(path)
    # Short: Linux takes 107 bytes of path, and the configuration allows 100.
    fresh = path.with_name(f"{path.name}.new")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        sock.bind(os.fspath(fresh))
        try:
            _give(fresh, group)
            sock.listen(_BACKLOG)
            fresh.replace(path)
        except BaseException:
            fresh.unlink()
            raise
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen at {path}: {error.strerror or error}; make its directory, or choose another path"
        ) from error
    return sock


def _refuse_if_used(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return
    raise ConfigError(f"cannot listen at {path}: another process does; stop it, or choose another path")


def _give(path: Path, group: str) -> None:
    """Group first, mode second: nobody gets in between. A group that we may not give to is left out."""
    try:
        wanted = grp.getgrnam(group).gr_gid
        # A service's system-call filter may refuse chown even where nothing is to change.
        if path.stat().st_gid != wanted:
            os.chown(path, -1, wanted)
    except KeyError:
        log.debug("socket.no_group", path=str(path), group=group)
    except OSError as error:
        log.warning("socket.group_refused", path=str(path), group=group, reason=error.strerror)
    path.chmod(_MODE)
