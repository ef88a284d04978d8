"""`p2pd verify` and `p2pd gc`: looking after what the node holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from p2pd.app.commands.asking import Socket, node
from p2pd.app.commands.output import Json, age, console, fail, plain, show_json, show_line, show_table, size
from p2pd.io.admin_client import AdminClient

__all__ = ["DryRun", "collect", "register"]

Digests = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DIGEST", help="Blobs, as sha256:<64 hex>; all where none is named.", show_default=False
    ),
]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")]


def register(app: typer.Typer) -> None:
    app.command("verify")(_verify)
    app.command("gc")(_gc)


def _gc(dry_run: DryRun = False, as_json: Json = False, socket: Socket = None) -> None:
    """Bring the store within the limits of [store], now.

    The daemon does this by itself: every hour, within a minute when the disk fills, and before transfers.
    What is in use stays; of what other nodes hold too the site keeps a copy. Ends with status 1 when
    the limits cannot be met.
    """
    collect(node(socket), dry_run, as_json)


def collect(daemon: AdminClient, dry_run: bool, as_json: bool) -> None:
    """The same for node and seeder."""
    told = daemon.post("/v1/gc", {"dry_run": dry_run})
    if as_json:
        show_json(told)
    else:
        rows = [
            (plain(each["name"]), size(each["size"]), age(each["idle"]), each["reason"])
            for each in told["gone"]
        ]
        show_table(("CONTENT", "SIZE>", "UNUSED>", "WHY"), rows, "nothing is too old or too much")
        print(_summary(told))
    if told["missing"]:
        raise fail()


def _summary(told: dict[str, Any]) -> str:
    tags = f", {told['tags']} old answers about tags" if told["tags"] else ""
    line = f"{'would free' if told['dry_run'] else 'freed'} {size(told['freed'])}{tags}; "
    line += f"{size(told['held_bytes'])} held, {size(told['disk_free'])} of {size(told['disk_total'])} free"
    if told["missing"]:
        line += f"; {size(told['missing'])} more should go and cannot: see [store] in the configuration"
    return line


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
