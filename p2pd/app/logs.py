"""Logging: structlog to stderr, as JSON lines, for a terminal or for the journal, libraries' records too.

The console format is our own few lines, so that it needs neither rich nor colorama, and no value
can steer a terminal.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from p2pd.app.recent import RECENT

__all__ = ["configure_logging", "is_journal", "render_console", "render_journal"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_LINE_LIMIT = 4096


def configure_logging(level: str = "info", style: str = "auto", stream: TextIO | None = None) -> None:
    """Set up logging of the whole process. `style`: "json", "console", "journal", or "auto" (by `stream`).

    Records of the standard library's loggers come as structured lines, from warning up (with level
    "error", from error up).
    """
    out = stream or sys.stderr
    if style == "auto":
        style = "console" if out.isatty() else "journal" if is_journal(out) else "json"
    renderers = {"console": render_console, "journal": render_journal}
    threshold = _LEVELS[level]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            RECENT,
            structlog.processors.format_exc_info,
            renderers.get(style) or structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_names: _Lines(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(_ToStructlog())
    root.setLevel(max(threshold, logging.WARNING))
    for name in ("hypercorn", "hypercorn.error", "hypercorn.access", "httpx", "httpcore", "zeroconf"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)
    logging.captureWarnings(True)


def render_console(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """`12:34:56 warning  what happened  key=value …`, always one line but for a traceback."""
    time = str(event.pop("timestamp", ""))[11:19]
    level = str(event.pop("level", ""))
    trace = event.pop("exception", None)
    line = f"{time} {level:8} {_sentence(event)}"
    return line + (f"\n{trace}" if trace else "")


def is_journal(stream: TextIO) -> bool:
    """Whether the journal reads `stream`. Source: systemd.exec(5), $JOURNAL_STREAM: device:inode of it."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def render_journal(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """`<4>what happened  key=value …`. The journal has the time already, and takes the level from the prefix.

    Source: sd-daemon(3). Each line of a traceback has the prefix, else the journal gives it another level.
    """
    event.pop("timestamp", None)
    prefix = f"<{_PRIORITIES.get(str(event.pop('level', '')), 6)}>"
    trace = str(event.pop("exception", None) or "")
    lines = [_sentence(event), *trace.splitlines()]
    return "\n".join(prefix + line for line in lines)


def _sentence(event: MutableMapping[str, Any]) -> str:
    what = _plain(event.pop("event", ""))
    pairs = " ".join(f"{key}={_plain(value)}" for key, value in event.items())
    return what + (f"  {pairs}" if pairs else "")


def _plain(value: object) -> str:
    """A value that cannot break the line or steer the terminal."""
    text = str(value)[:_LINE_LIMIT]
    return text if text.isprintable() else ascii(text)[1:-1]


class _Lines:
    """Writes lines. A stream that is lost (a closed terminal, a full disk) must not stop the daemon."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            try:
                self._stream.write(line + "\n")
            except UnicodeEncodeError:
                self._stream.write(ascii(line)[1:-1] + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return

    log = debug = info = warn = warning = error = critical = exception = fatal = msg


class _ToStructlog(logging.Handler):
    """Hands records of the standard library's loggers to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        structlog.get_logger().log(
            record.levelno, message[:_LINE_LIMIT], logger=record.name, exc_info=record.exc_info or None
        )
