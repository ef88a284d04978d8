"""Progress of an update while it runs: one line that renews itself, or plain lines without a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TextIO

__all__ = ["Progress"]

_PLAIN_EVERY_S = 5.0
_SHADES = " ▁▂▃▄▅▆▇█"


class Progress:
    """Shows one system's update; `finish` leaves its last line standing."""

    def __init__(self, system: str, image_bytes: int, out: TextIO) -> None:
        self._system = system
        self._image_bytes = image_bytes
        self._out = out
        self._live = out.isatty()
        self._next_plain = 0.0

    def observe(self, seconds: float, held: Sequence[int]) -> None:
        """Bytes held by each node, `seconds` after the start."""
        if self._live:
            self._rewrite(self._line(seconds, held))
        elif seconds >= self._next_plain:
            self._next_plain = seconds + _PLAIN_EVERY_S
            print(self._line(seconds, held), file=self._out, flush=True)

    def finish(self, verdict: str) -> None:
        line = f"{self._system:14} {verdict}"
        if self._live:
            self._rewrite(line)
            print(file=self._out, flush=True)
        else:
            print(line, file=self._out, flush=True)

    def say(self, text: str) -> None:
        """What is happening before the clock starts."""
        if self._live:
            self._rewrite(f"{self._system:14} {text}")

    def _line(self, seconds: float, held: Sequence[int]) -> str:
        shares = [min(1.0, count / self._image_bytes) for count in held]
        if self._live:
            nodes = "".join(_SHADES[int(share * (len(_SHADES) - 1))] for share in shares)
        else:
            nodes = " ".join(f"{share:.0%}" for share in shares)
        mean = sum(shares) / len(shares)
        return f"{self._system:14} {seconds:6.1f} s  {mean:4.0%} of the site  [{nodes}]"

    def _rewrite(self, line: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{line[:width]}", end="", file=self._out, flush=True)
