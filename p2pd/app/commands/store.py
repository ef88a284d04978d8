"""`p2pd verify`: looking after what the node holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from p2pd.app.commands.asking import Socket, node
from p2pd.app.commands.output import Json, console, fail, plain, show_line, size

__all__ = ["register"]

Digests = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DIGEST", help="Blobs, as sha256:<64 hex>; all where none is named.", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    app.command("verify")(_verify)


def _verify(digests: Digests = None, as_json: Json = False, socket: Socket = None) -> None:
    """Read held blobs and hash them again.

    A corrupt one is dropped, and fetched again when somebody asks for it; serving goes on meanwhile.
    Ends with status 1 when any was corrupt, or is not held although it was named. With --json, one line
    of JSON an event.
    """
    events = node(socket).stream("/v1/verify", {"digests": digests or []})
    bad = _tell_json(events) if as_json else _tell(events)
    if bad:
        raise fail()


def _tell_json(events: Iterable[dict[str, Any]]) -> int:
    bad = 0
    for event in events:
        show_line(event)
        bad = event.get("bad", bad)
    return bad


def _tell(events: Iterable[dict[str, Any]]) -> int:
    out, bad = console(), 0
    with out.status("reading…") as spinner:
        for event in events:
            match event["event"]:
                case "progress":
                    spinner.update(f"reading: {size(event['checked'])} of {size(event['size'])}")
                case "corrupt":
                    out.print(f"{plain(event['digest'])} is corrupt: dropped")
                case "missing":
                    out.print(f"{plain(event['digest'])} is not held")
                case "done":
                    bad = event["bad"]
                    out.print(f"{event['checked']} blobs, {size(event['size'])}: {bad or 'none'} bad")
    return int(bad)
