"""Frames from a byte stream, however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pd.model.errors import PeerProtocolError
from p2pd.wire.frames import FRAME_LIMIT, HELLO_LIMIT, FrameBuffer


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=5), st.integers(1, 64))
def test_frames_cut_from_a_stream(sent: list[bytes], step: int) -> None:
    stream = b"".join(len(frame).to_bytes(4, "big") + frame for frame in sent)
    bytewise = {1} if len(stream) < 4000 else set()
    for size in bytewise | {step, len(stream) + 1}:
        buffer, taken = FrameBuffer(FRAME_LIMIT), []
        for at in range(0, len(stream), size):
            buffer.feed(stream[at : at + size])
            while (frame := buffer.next_frame()) is not None:
                taken.append(frame)
        assert taken == sent


@pytest.mark.parametrize("length", [0, HELLO_LIMIT + 1, 2**32 - 1])
def test_a_bad_length_is_refused_before_its_bytes_come(length: int) -> None:
    buffer = FrameBuffer()
    buffer.feed(length.to_bytes(4, "big")[:3])
    assert buffer.next_frame() is None
    buffer.feed(length.to_bytes(4, "big")[3:])
    with pytest.raises(PeerProtocolError):
        buffer.next_frame()
