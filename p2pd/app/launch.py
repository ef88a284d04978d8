"""What both commands share on the way to their daemon: the call, the configuration, the end.

Nothing here, and nothing that it imports, may import typer or rich: a daemon lives for months, and
they would cost it 4 MB and a tenth of a second for nothing.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import trio

from p2pd.app.memory import trim_malloc, tune_malloc
from p2pd.app.settings import load
from p2pd.model.errors import NotRunning, P2pdError, UserMistake

__all__ = ["RunCall", "explain", "leave", "lean_imports", "load_config", "parse_run", "run_until_done"]

_COMMAND_LINE_ONLY = ("click", "pygments", "rich")

_NEVER_CALLED = {
    "h2": ("events",),
    "h2.events": (),
    "hypercorn.protocol.h2": ("H2Protocol",),
    "hypercorn.protocol.ws_stream": ("WSStream",),
    "multiprocessing.synchronize": ("Event",),
    "html": ("escape",),
}
"""What libraries import, and the names that they want of it, for what a daemon never does: speak HTTP/2
(Hypercorn; the tables of header compression alone are 2.4 MB) or WebSocket (0.5 MB), start workers
(Hypercorn), show tracebacks as web pages (Starlette). Nobody reaches these names afterwards."""


@dataclass(frozen=True, slots=True)
class RunCall:
    """`run`, with the file given by `--config` if there was one."""

    config: str | None = None


def parse_run(words: Sequence[str]) -> RunCall | None:
    """A plain `run [--config FILE]`; None for everything else, which is left to typer to read or refuse."""
    match list(words):
        case ["run"]:
            return RunCall()
        case ["run", "--config", file]:
            return RunCall(file)
        case ["run", option] if option.startswith("--config="):
            return RunCall(option.removeprefix("--config="))
    return None


@contextmanager
def lean_imports() -> Iterator[None]:
    """Hide what structlog, httpx and Hypercorn import wherever it is installed, but no daemon of ours needs.

    Only from what is imported inside: afterwards each can be imported as ever.
    """
    hidden = [name for name in _COMMAND_LINE_ONLY if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # how Python marks what must not be imported
    for name, wanted in _NEVER_CALLED.items():
        if name not in sys.modules:
            sys.modules[name] = module = ModuleType(name)
            vars(module).update(dict.fromkeys(wanted))
            hidden.append(name)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def load_config(given: str | None, default: str, cls: type[Any]) -> Any:
    """The configuration in the file that was given, else in the default one if there is one."""
    if given is not None:
        return load(Path(given), cls)
    return load(Path(default), cls) if Path(default).exists() else cls()


def run_until_done(daemon: Callable[..., Any], config: object) -> None:
    """Run an async daemon. What was imported lives for ever, so the collector need not look at it."""
    tune_malloc()
    gc.collect()
    gc.freeze()
    trim_malloc()
    trio.run(daemon, config)


def leave() -> NoReturn:
    """End a process whose daemon has stopped in good order, without the exit handlers of its libraries.

    libtorrent's hashing threads may outlive their session, and a SHA-1 that is under way while OpenSSL's
    own handler tidies up ends the process by SIGSEGV.
    """
    for stream in (sys.stdout, sys.stderr):
        # One that is closed (then it is None), or whose disk is full, does not make the stop a failure.
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(0)


def explain(program: str, work: Callable[[], None]) -> int:
    """Call `work`; turn a P2pdError into one line for the user and an exit status.

    0 done, 1 failed, 2 a mistake in the call or the configuration, 3 no daemon answers, 130 interrupted.
    """
    try:
        work()
    except P2pdError as error:
        return _say(program, error)
    except KeyboardInterrupt:
        return 130
    except BaseExceptionGroup as group:
        expected, rest = group.split(P2pdError)
        if expected is None or rest is not None:
            raise
        leaf: BaseException = expected
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        return _say(program, leaf)
    return 0


def _say(program: str, error: BaseException) -> int:
    print(f"{program}: {error}", file=sys.stderr)
    if isinstance(error, NotRunning):
        return 3
    return 2 if isinstance(error, UserMistake) else 1
