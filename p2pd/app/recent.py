"""The last warnings and errors, kept in memory so that `status` can show them without a log store."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any

from p2pd.model.admin import Notice

__all__ = ["RECENT", "Recent"]

_KEPT = 20
_SHOWN = 400
_NOT_DETAIL = frozenset({"event", "level", "timestamp", "exception"})


class Recent:
    """A structlog processor that lets every line pass and remembers the grave ones, the newest first."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: deque[Notice] = deque(maxlen=_KEPT)

    def __call__(
        self, _logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        level = str(event.get("level", method))
        if level in {"warning", "error", "critical"}:
            detail = " ".join(f"{key}={value}" for key, value in event.items() if key not in _NOT_DETAIL)
            self._kept.appendleft(
                Notice(self._clock(), level, str(event.get("event", ""))[:_SHOWN], detail[:_SHOWN])
            )
        return event

    def notices(self, most: int = 5) -> list[Notice]:
        return list(self._kept)[:most]


RECENT = Recent()
"""Of this process: logging is configured for a process, too."""
