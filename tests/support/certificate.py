"""A certificate for TLS on the loopback interface."""

from __future__ import annotations

import shlex
import ssl
import subprocess
from pathlib import Path

__all__ = ["make_certificate", "server_context"]

_MAKE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test "
    "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
)


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """One for 127.0.0.1 that is its own CA, and its key. Blocks."""
    subprocess.run(shlex.split(_MAKE), cwd=directory, check=True, capture_output=True)
    return directory / "cert.pem", directory / "key.pem"


def server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context
