"""The `p2pd` command.

Exit status: 0 done, 1 our own fault (disk, ports), 2 a mistake in the call or the configuration.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from p2pd import __version__
from p2pd.app.config import NodeConfig, load
from p2pd.app.logs import configure_logging
from p2pd.model.errors import P2pdError, UserMistake

__all__ = ["explain", "main", "run_until_done"]

DEFAULT_CONFIG = "/etc/p2pd/p2pd.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = _parser().parse_args(arguments)
    return explain("p2pd", lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="p2pd",
        description="Serve container images to this node from its neighbours: each layer crosses "
        "the site's WAN once. Point containerd's hosts.toml at the mirror (default 127.0.0.1:7780).",
    )
    parser.add_argument("--version", action="version", version=f"p2pd {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run the node daemon", description="Run the node daemon.")
    run.add_argument(
        "--config",
        metavar="FILE",
        help=f"configuration in TOML (default: {DEFAULT_CONFIG} if it is there; every key is optional)",
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    config = load_config(options.config, DEFAULT_CONFIG, NodeConfig)
    configure_logging(config.log.level, config.log.format)
    # Imported here: only the daemon pays for libtorrent, httpx and the like.
    from p2pd.app.daemon import run_daemon

    run_until_done(run_daemon, config)


def load_config(given: str | None, default: str, cls: type[Any]) -> Any:
    """The configuration in the file that was given, else in the default one if there is one."""
    if given is not None:
        return load(Path(given), cls)
    return load(Path(default), cls) if Path(default).exists() else cls()


def run_until_done(daemon: Callable[..., Any], config: object) -> None:
    """Run an async daemon. What was imported lives for ever, so the collector need not look at it."""
    gc.collect()
    gc.freeze()
    trio.run(daemon, config)


def explain(program: str, work: Callable[[], None]) -> int:
    """Call `work`; turn a P2pdError into one line for the user and an exit status."""
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
    return 2 if isinstance(error, UserMistake) else 1


if __name__ == "__main__":
    sys.exit(main())
