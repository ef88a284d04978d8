"""The `p2pd-seeder` command. `run` is started here; the rest is in seeder.commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from p2pd.app.launch import RunCall, explain, lean_imports, load_config, parse_run, run_until_done
from seeder.config import SeederConfig

__all__ = ["DEFAULT_CONFIG", "main", "run"]

DEFAULT_CONFIG = "/etc/p2pd/seeder.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    call = parse_run(words)
    if call is not None:
        return explain("p2pd-seeder", lambda: run(call))
    # Imported here: the daemon must not pay for typer.
    from p2pd.app.commands.output import run_app
    from seeder.commands import make_app

    return run_app(make_app(), "p2pd-seeder", words)


def run(call: RunCall) -> None:
    """Run the seeder until it is told to stop; raises P2pdError where it cannot start."""
    config = load_config(call.config, DEFAULT_CONFIG, SeederConfig)
    with lean_imports():
        from p2pd.app.logs import configure_logging
        from seeder.service import run_seeder

    configure_logging(config.log.level, config.log.format)
    run_until_done(run_seeder, config)


if __name__ == "__main__":
    sys.exit(main())
