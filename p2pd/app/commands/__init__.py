"""The commands of `p2pd`, one module a group, each with `register(app)`.

A command is a thin shell: it asks the daemon over the admin socket (or reads files) and shows the
answer with the helpers in `output`, as a table or, with --json, as the data itself.
"""

from __future__ import annotations

import typer

from p2pd import __version__
from p2pd.app.commands.output import EXIT_CODES, new_app

__all__ = ["make_app"]


def make_app() -> typer.Typer:
    """The whole command line."""
    # Imported here: the seeder uses single modules of this package, and has not all that the others need.
    from p2pd.app.commands import config, daemon, doctor, lists, pull, runtime, status, store

    app = new_app(
        "Serve container images to this node from its neighbours: each layer crosses the site's WAN once.",
        f"p2pd {__version__}",
        "The daemon is asked over its admin socket ([admin] socket): be root, or in the group p2pd. "
        + EXIT_CODES,
    )
    for group in (daemon, status, lists, pull, store, runtime, doctor, config):
        group.register(app)
    return app
