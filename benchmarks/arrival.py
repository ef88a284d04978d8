"""When the nodes of a site begin their update."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["TOGETHER", "Arrival"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """All at one instant, one every `gap_s` seconds, or `late` nodes after the others have everything."""

    gap_s: float = 0.0
    late: int = 0

    @classmethod
    def parse(cls, text: str) -> Arrival:
        """`together`, `rolling:SECONDS` or `late:NODES`; raises ValueError."""
        kind, colon, number = text.partition(":")
        if text == "together":
            return cls()
        if kind == "rolling" and colon:
            gap_s = float(number)
            if not 0 < gap_s < math.inf:
                raise ValueError(f"{text!r}: a rolling update needs a time above zero between two nodes")
            return cls(gap_s=gap_s)
        if kind == "late" and colon:
            late = int(number)
            if late < 1:
                raise ValueError(f"{text!r}: at least one node must be late")
            return cls(late=late)
        raise ValueError(f"{text!r} is none of together, rolling:SECONDS, late:NODES")

    def __str__(self) -> str:
        if self.gap_s:
            return f"rolling:{self.gap_s:g}"
        return f"late:{self.late}" if self.late else "together"

    def waves(self, nodes: int) -> list[list[float]]:
        """Offsets in seconds, a list for each wave; a wave begins when the one before it has ended.

        Nodes are taken in order. Raises ValueError where the site has too few.
        """
        if self.late >= nodes:
            raise ValueError(f"with {nodes} nodes at most {nodes - 1} can be late: someone must come first")
        first = [index * self.gap_s for index in range(nodes - self.late)]
        return [first, [0.0] * self.late] if self.late else [first]


TOGETHER = Arrival()
