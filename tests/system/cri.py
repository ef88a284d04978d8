"""The pull that a kubelet makes: CRI's PullImage, spoken by curl.

gRPC over HTTP/2 on containerd's socket; the few fields needed are written by hand. Source:
k8s.io/cri-api runtime/v1/api.proto, and the gRPC over HTTP2 specification.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from tests.system.clients import Client

__all__ = ["pull_image"]


def pull_image(client: Client, socket: Path, reference: str) -> None:
    """Pull for the kubelet; raises AssertionError with containerd's own words."""
    # PullImageRequest{image: ImageSpec{image: reference}}
    message = _field(1, _field(1, reference.encode()))
    name = reference.replace("/", "-")
    (client.files / name).write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    answer = client.run(
        *("curl", "--silent", "--show-error", "--http2-prior-knowledge", "--unix-socket", socket),
        *("--header", "content-type: application/grpc", "--header", "te: trailers"),
        *("--data-binary", f"@{client.home}/{name}", "--output", "/dev/null", "--dump-header", "-"),
        "http://localhost/runtime.v1.ImageService/PullImage",
    )
    fields = dict(re.findall(r"^(grpc-\w+): (.*?)\r?$", answer, re.MULTILINE))
    assert fields.get("grpc-status") == "0", unquote(fields.get("grpc-message", answer))


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field of protocol buffers."""
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value
