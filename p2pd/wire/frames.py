"""Frames of the control protocol, cut from a byte stream: a 4-byte big-endian length and that many bytes."""

from __future__ import annotations

from p2pd.model.errors import PeerProtocolError

__all__ = ["FRAME_LIMIT", "HELLO_LIMIT", "FrameBuffer"]

FRAME_LIMIT = 512 * 1024
"""Largest frame after its length, bytes."""

HELLO_LIMIT = 1024
"""Largest frame taken from a peer that has not introduced itself, bytes."""


class FrameBuffer:
    """Cuts a byte stream into frames. Holds no more than one frame and what was fed last."""

    def __init__(self, limit: int = HELLO_LIMIT) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> None:
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """The next whole frame without its length, None until more is fed.

        Raises PeerProtocolError as soon as a length is zero or over `limit`.
        """
        if len(self._buffer) < 4:
            return None
        length = int.from_bytes(self._buffer[:4], "big")
        if not 0 < length <= self.limit:
            raise PeerProtocolError(f"frame of {length} bytes is not within 1 to {self.limit}")
        if len(self._buffer) < 4 + length:
            return None
        frame = bytes(self._buffer[4 : 4 + length])
        del self._buffer[: 4 + length]
        return frame
