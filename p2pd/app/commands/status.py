"""`p2pd status`: the node on one screen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from p2pd.app.commands.asking import Socket, node
from p2pd.app.commands.output import (
    Json,
    age,
    console,
    plain,
    short,
    show,
    show_json,
    show_line,
    size,
    table_of,
)
from p2pd.io.admin_client import AdminClient

__all__ = ["register", "screen", "transfer_rows", "warnings"]

EVERY = 1.0

TRANSFER_COLUMNS = ("BLOB", "REPOSITORY", "DONE>", "SIZE>", "RATE>", "SECONDS>", "WAN", "PEERS>")


def register(app: typer.Typer) -> None:
    app.command("status")(_status)


def _status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again every second, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
    socket: Socket = None,
) -> None:
    """Show the node at a glance.

    Peers, content, traffic, transfers, the last warnings.

    "WAN spared" is what clients were given minus what this node fetched over the WAN, today and in all. It is
    negative where content was fetched ahead of the clients that will ask for it. Added up over the nodes of a
    site it is what the site's WAN was spared.

    With --watch --json, one line of JSON a second.
    """
    daemon = node(socket)
    if not watch:
        status = daemon.get("/v1/status")
        show_json(status) if as_json else show(screen(status, time.time()))
        return
    out = console()
    if as_json or not out.is_terminal:
        for status in _every_second(daemon):
            show_line(status) if as_json else show(screen(status, time.time()))
        return
    with Live(console=out, auto_refresh=False) as live:
        for status in _every_second(daemon):
            live.update(screen(status, time.time()), refresh=True)


def _every_second(daemon: AdminClient) -> Iterator[dict[str, Any]]:
    while True:
        yield daemon.get("/v1/status")
        time.sleep(EVERY)


def screen(status: dict[str, Any], now: float) -> RenderableType:
    """The answer of /v1/status as lines and tables."""
    head = [
        f"p2pd {status['version']}  site {status['site']}  node {status['node'][:12]}  "
        f"up {age(now - status['started_at'])}",
        f"mirror {status['mirror']}  peers {status['peers']}  "
        f"held {status['blobs']} blobs, {size(status['blob_bytes'])}",
        "WAN    " + ("; ".join(_source(each) for each in status["sources"]) or "no source is configured"),
    ]
    shown: list[RenderableType] = [*(Text(plain(line)) for line in head), Text(""), _traffic(status)]
    if status["transfers"]:
        shown += [Text(""), table_of(TRANSFER_COLUMNS, transfer_rows(status["transfers"]))]
    return Group(*shown, *warnings(status, now))


def warnings(status: dict[str, Any], now: float) -> list[RenderableType]:
    """The last of them, if there are any; also for the seeder."""
    rows = [
        (age(now - each["at"]) + " ago", each["level"], each["event"], each["detail"])
        for each in status["notices"]
    ]
    return [Text(""), table_of(("LAST WARNINGS", "", "", ""), rows)] if rows else []


def _source(source: dict[str, Any]) -> str:
    down = source["registries_down"]
    if not source["up"]:
        return f"{source['name']} down"
    return f"{source['name']} up" + (f", but for {', '.join(down)}" if down else "")


def _traffic(status: dict[str, Any]) -> RenderableType:
    today, total = status["today"], status["total"]
    since = time.strftime("%Y-%m-%d", time.localtime(status["counted_since"]))
    rows = [
        (label, size(today[key]), size(total[key]))
        for label, key in (
            ("given to clients", "given"),
            ("from peers (LAN)", "lan"),
            ("from a seeder (WAN)", "seeder"),
            ("from registries (WAN)", "origin"),
        )
    ]
    spared = ("WAN spared", size(status["wan_spared_today"]), size(status["wan_spared_total"]))
    return table_of(("TRAFFIC", "TODAY>", f"SINCE {since}>"), [*rows, spared])


def transfer_rows(transfers: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    return [
        (
            short(each["digest"]),
            each["repository"],
            f"{100 * each['have'] // max(1, each['size'])} %",
            size(each["size"]),
            f"{size(each['rate'])}/s",
            f"{each['seconds']:.0f}",
            each["way"],
            each["members"] + each["holders"],
        )
        for each in transfers
    ]
