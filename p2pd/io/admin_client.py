"""Talking to a daemon at its admin socket: blocking, on the standard library, for the command line."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from p2pd.model.errors import NotRunning, OurFault, UserMistake

__all__ = ["AdminClient"]

_CONNECT = 3.0
_SILENCE = 60.0
"""Seconds without a byte after which a daemon counts as hung: streams tell something every few seconds."""

_LINE_LIMIT = 1024 * 1024
_BODY_LIMIT = 256 * 1024 * 1024


class AdminClient:
    """`service` is what is to be looked at when nobody answers: the name of a systemd unit."""

    def __init__(self, path: Path, service: str) -> None:
        self._path, self._service = path, service

    def get(self, path: str) -> Any:
        """The answer's JSON. Raises NotRunning; UserMistake or OurFault with the daemon's own line."""
        with self._asked("GET", path, None) as response:
            return _json(response.read(_BODY_LIMIT))

    def post(self, path: str, order: object) -> Any:
        """The same for an order, given as JSON."""
        with self._asked("POST", path, order) as response:
            return _json(response.read(_BODY_LIMIT))

    def stream(self, path: str, order: object) -> Iterator[dict[str, Any]]:
        """The answer's lines as they come. Raises as `get` does, also for a last line that is an error."""
        with self._asked("POST", path, order) as response:
            while line := response.readline(_LINE_LIMIT):
                event = _json(line)
                if event.get("event") == "error":
                    raise OurFault(str(event.get("error")))
                yield event
                if event.get("event") == "done":
                    return
        raise OurFault(f"{self._service} stopped answering half-way; see journalctl -u {self._service}")

    @contextmanager
    def _asked(self, method: str, path: str, order: object) -> Iterator[http.client.HTTPResponse]:
        connection, name = _UnixConnection(self._path), self._service
        try:
            body = None if order is None else json.dumps(order)
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise _refusal(response)
            yield response
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NotRunning(
                f"nobody answers at {self._path}: is {name} running? systemctl status {name}"
            ) from error
        except PermissionError as error:
            raise NotRunning(
                f"may not use {self._path}: be root (sudo), or in the group that owns it"
            ) from error
        except TimeoutError as error:
            raise NotRunning(f"{name} does not answer; see journalctl -u {name}") from error
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or repr(error)
            raise NotRunning(f"{name} broke off: {why}; see journalctl -u {name}") from error
        finally:
            connection.close()


class _Answer(dict[str, Any]):
    """An object of an answer. What it lacks is told in one line: the daemon was not restarted after an
    update, or it is the other one (node, seeder) that answers at this socket."""

    def __missing__(self, key: str) -> Any:
        raise OurFault(
            f"the daemon's answer has no {key!r}: does it run another version (restart it), "
            "or is this the socket of another daemon?"
        )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_SILENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CONNECT)
        self.sock.connect(str(self._path))
        self.sock.settimeout(self.timeout)


def _refusal(response: http.client.HTTPResponse) -> Exception:
    try:
        line = str(json.loads(response.read(_LINE_LIMIT))["error"])
    except (ValueError, KeyError, TypeError):
        line = f"the daemon failed with status {response.status}; its log says why"
    mistake = response.status in {400, 404, 405}
    return UserMistake(line) if mistake else OurFault(line)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data, object_hook=_Answer)
    except ValueError as error:
        raise OurFault("the daemon's answer is not JSON: is another program at that socket?") from error
