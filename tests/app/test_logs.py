"""Log lines."""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from collections.abc import Iterator

import pytest
import structlog

from p2pd.app.logs import configure_logging
from p2pd.app.recent import RECENT


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_lines() -> None:
    configure_logging("info", "auto", out := io.StringIO())
    log = structlog.get_logger()
    log.debug("too fine")
    log.info("blob stored", digest="sha256:ab", bytes=5, what={1})
    (line,) = lines(out)
    assert line.pop("timestamp")
    assert line == {"event": "blob stored", "level": "info", "digest": "sha256:ab", "bytes": 5, "what": "{1}"}


def test_grave_lines_are_remembered_for_the_status() -> None:
    configure_logging("warning", "json", io.StringIO())
    structlog.get_logger().error("disk.fails", path="/x")
    structlog.get_logger().info("all.well")
    notice = RECENT.notices()[0]
    assert (notice.event, notice.level, notice.detail) == ("disk.fails", "error", "path=/x")


def test_level_is_heeded() -> None:
    configure_logging("error", "json", out := io.StringIO())
    structlog.get_logger().warning("a")
    logging.getLogger("zeroconf").warning("b")
    structlog.get_logger().error("c")
    assert [line["event"] for line in lines(out)] == ["c"]


def test_a_logger_made_before_obeys_too() -> None:
    log = structlog.get_logger()
    configure_logging("error", "json", out := io.StringIO())
    log.info("a")
    log.error("b")
    assert [line["event"] for line in lines(out)] == ["b"]


def test_libraries_are_structured_and_quiet() -> None:
    noisy = logging.getLogger("hypercorn.error")
    noisy.addHandler(logging.StreamHandler())
    noisy.setLevel(logging.DEBUG)
    configure_logging("debug", "json", out := io.StringIO())
    logging.getLogger("httpx").info("HTTP Request: GET …")
    noisy.info("Running on …")
    noisy.warning("odd %s", "thing")
    noisy.warning("bad %d arguments", "x")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("deprecated", UserWarning, stacklevel=1)
    found = lines(out)
    assert [(line["event"], line["level"], line["logger"]) for line in found[:2]] == [
        ("odd thing", "warning", "hypercorn.error"),
        ("bad %d arguments", "warning", "hypercorn.error"),
    ]
    assert "deprecated" in str(found[2]["event"])


def test_tracebacks_are_kept() -> None:
    configure_logging("info", "json", out := io.StringIO())
    try:
        raise ValueError("here")
    except ValueError:
        structlog.get_logger().exception("task crashed")
        logging.getLogger("x").exception("library crashed")
    assert ["ValueError: here" in str(line["exception"]) for line in lines(out)] == [True, True]


def test_terminal_gets_one_readable_line_that_cannot_steer_it() -> None:
    configure_logging("info", "auto", out := Terminal())
    structlog.get_logger().warning("peer left", peer="evil\x1b[2J\nname", seconds=1.5)
    (line,) = out.getvalue().splitlines()
    assert line[8:] == r" warning  peer left  peer=evil\x1b[2J\nname seconds=1.5"


def test_the_journal_gets_the_level_and_not_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    found = os.fstat(writer)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    with open(reader) as journal:
        with open(writer, "w") as out:
            configure_logging("debug", "auto", out)
            log = structlog.get_logger()
            log.debug("a")
            log.info("transfer.ends", digest="sha256:ab", seconds=1.5)
            log.warning("peer left", peer="evil\x1b[2J\n<0>name")
            try:
                raise ValueError("here")
            except ValueError:
                log.exception("task crashed")
        first, *rest = journal.read().splitlines()
    assert first == "<7>a"
    assert rest[0] == "<6>transfer.ends  digest=sha256:ab seconds=1.5"
    assert rest[1] == r"<4>peer left  peer=evil\x1b[2J\n<0>name"
    assert rest[2] == "<3>task crashed"
    assert rest[-1] == "<3>ValueError: here"
    assert all(line.startswith("<3>") for line in rest[2:])


def test_a_pipe_that_is_not_the_journal_gets_json(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setenv("JOURNAL_STREAM", "8:12345")
    with open(reader) as pipe:
        with open(writer, "w") as out:
            configure_logging("info", "auto", out)
            structlog.get_logger().info("a")
        assert json.loads(pipe.read())["event"] == "a"


def test_lost_stream_is_harmless() -> None:
    for out in (Gone(), io.StringIO()):
        configure_logging("info", "json", out)
        if not isinstance(out, Gone):
            out.close()
        structlog.get_logger().info("into the void")


def test_narrow_encoding_is_harmless() -> None:
    raw = io.BytesIO()
    configure_logging("info", "console", io.TextIOWrapper(raw, "ascii"))
    structlog.get_logger().info("é")
    assert rb"\xe9" in raw.getvalue()
