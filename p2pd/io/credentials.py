"""Logins for registries, as `docker login` and its kin leave them in config.json.

Credential helpers are programs and are not run.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import trio

from p2pd.model.errors import InvalidReference
from p2pd.model.reference import parse_registry

__all__ = ["DockerConfig", "Login"]

log = structlog.get_logger()

_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Login:
    """A user with a password, or with an identity token to be traded at the token server."""

    username: str
    password: str = field(repr=False)
    identity_token: str | None = field(default=None, repr=False)

    @property
    def basic(self) -> str:
        """Value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


class DockerConfig:
    """Logins by registry, read again whenever the file changes.

    A missing or broken file means no logins and one warning for each state of the file: what is
    public can still be pulled.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._warned: str | None = None
        self._logins: dict[str, Login] = {}

    async def login(self, *hosts: str) -> Login | None:
        """The login of the first of `hosts` (registry names or hosts with ports) that has one."""
        if self._path is not None:
            await trio.to_thread.run_sync(self._refresh, self._path)
        return next((self._logins[host] for host in hosts if host in self._logins), None)

    def _refresh(self, path: Path) -> None:
        try:
            found = os.stat(path)
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen == self._seen:
                return
            with path.open("rb") as file:
                text = file.read(_LIMIT + 1)
        except OSError as error:
            self._seen, self._logins = None, {}
            self._warn(path, error.strerror or str(error))
            return
        self._seen = seen
        try:
            self._logins = _logins(text)
            self._warned = None
        except ValueError as error:
            self._logins = {}
            self._warn(path, str(error))

    def _warn(self, path: Path, reason: str) -> None:
        if reason != self._warned:
            self._warned = reason
            log.warning("credentials.unusable", file=str(path), reason=reason, effect="pulling anonymously")


def _logins(text: bytes) -> dict[str, Login]:
    if len(text) > _LIMIT:
        raise ValueError(f"larger than {_LIMIT} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    auths = document.get("auths", {}) if isinstance(document, dict) else None
    if not isinstance(auths, dict):
        raise ValueError("not an object with an object `auths`")  # noqa: TRY004  (caught as one with "not JSON")
    logins: dict[str, Login] = {}
    for key, entry in auths.items():
        host, login = _host(key), _login(entry)
        if host is None or login is None:
            log.warning("credentials.entry_left_out", key=key[:80], reason="no registry or no usable login")
        else:
            logins[host] = login
    return logins


def _host(key: str) -> str | None:
    """`https://index.docker.io/v1/` and the like -> the registry's name."""
    try:
        return parse_registry(key.split("://", 1)[-1].split("/", 1)[0])
    except InvalidReference:
        return None


def _login(entry: object) -> Login | None:
    if not isinstance(entry, dict):
        return None
    username, password, token = (
        value if isinstance(value := entry.get(key), str) else ""
        for key in ("username", "password", "identitytoken")
    )
    if isinstance(auth := entry.get("auth"), str) and auth:
        try:
            username, _, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeError):
            return None
        password = password.rstrip("\0")
    return Login(username, password, token or None) if username or token else None
