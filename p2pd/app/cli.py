"""The `p2pd` command. `run` is started here; what talks to a running daemon is in p2pd.app.commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from p2pd.app.config import NodeConfig
from p2pd.app.launch import RunCall, explain, lean_imports, leave, load_config, parse_run, run_until_done

__all__ = ["DEFAULT_CONFIG", "main", "run"]

DEFAULT_CONFIG = "/etc/p2pd/p2pd.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    call = parse_run(words)
    if call is not None:
        return explain("p2pd", lambda: run(call))
    # Imported here: the daemon must not pay for typer.
    from p2pd.app.commands import make_app
    from p2pd.app.commands.output import run_app

    return run_app(make_app(), "p2pd", words)


def run(call: RunCall) -> None:
    """Run the node daemon until it is told to stop; raises P2pdError where it cannot start."""
    config = load_config(call.config, DEFAULT_CONFIG, NodeConfig)
    with lean_imports():
        from p2pd.app.daemon import run_daemon
        from p2pd.app.logs import configure_logging

    configure_logging(config.log.level, config.log.format)
    run_until_done(run_daemon, config)
    leave()


if __name__ == "__main__":
    sys.exit(main())
