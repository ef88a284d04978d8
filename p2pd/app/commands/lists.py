"""`p2pd peers`, `images`, `blobs` and `transfers`: what the node knows, as tables."""

from __future__ import annotations

from typing import Any

import typer

from p2pd.app.commands.asking import Socket, node
from p2pd.app.commands.output import Json, age, short, show_json, show_table, size
from p2pd.app.commands.status import TRANSFER_COLUMNS, transfer_rows

__all__ = ["register", "show_blobs", "show_images"]


def register(app: typer.Typer) -> None:
    app.command("peers")(_peers)
    app.command("images")(_images)
    app.command("blobs")(_blobs)
    app.command("transfers")(_transfers)


def _peers(as_json: Json = False, socket: Socket = None) -> None:
    """List the other nodes of the site.

    Each live one is asked for a sign of life. Addresses that are dialled in vain come last, with the
    reason where one is known: another site, another version. A node that is missing was not found at
    all: look at [lan] multicast and peers.
    """
    peers = node(socket).get("/v1/peers")["peers"]
    if as_json:
        show_json(peers)
        return
    rows = [
        (
            (peer["node"] or "")[:12],
            f"{peer['host']}:{peer['port']}",
            "live" if peer["live"] else "not reached",
            f"{1000 * peer['rtt']:.1f} ms" if peer["rtt"] is not None else "",
            peer["reason"],
        )
        for peer in peers
    ]
    show_table(("NODE", "ADDRESS", "STATE", "ANSWERS IN>", "REASON"), rows, "no other node was found yet")


def _images(as_json: Json = False, socket: Socket = None) -> None:
    """List images, and how much of each is held.

    An image is listed from the first time that its tag was asked for here.

    An image whose state is "whole" can be pulled without the WAN. Images pulled by digest alone have no tag:
    their content is among the blobs.
    """
    show_images(node(socket).get("/v1/images")["images"], as_json)


def show_images(images: list[dict[str, Any]], as_json: bool) -> None:
    """Also for the seeder, whose answer is the same."""
    if as_json:
        show_json(images)
        return
    rows = [
        (
            f"{image['repository']}:{image['tag']}",
            short(image["digest"]),
            ", ".join(image["platforms"]),
            size(image["size"]),
            size(image["held"]),
            "whole" if image["complete"] else "in part" if image["held"] else "known",
        )
        for image in images
    ]
    show_table(("IMAGE", "DIGEST", "PLATFORMS", "SIZE>", "HELD>", "STATE"), rows, "no tag was asked for yet")


def _blobs(as_json: Json = False, socket: Socket = None) -> None:
    """List held content, the largest first.

    With each blob come the images that are known to use it.
    """
    show_blobs(node(socket).get("/v1/blobs")["blobs"], as_json)


def show_blobs(blobs: list[dict[str, Any]], as_json: bool) -> None:
    """Also for the seeder, whose answer is the same."""
    if as_json:
        show_json(blobs)
        return
    rows = [
        (
            blob["digest"],
            size(blob["size"]),
            age(blob["idle"]),
            ", ".join(blob["images"]),
        )
        for blob in blobs
    ]
    show_table(("DIGEST", "SIZE>", "UNUSED FOR>", "USED BY"), rows, "nothing is held yet")


def _transfers(as_json: Json = False, socket: Socket = None) -> None:
    """List blobs on their way to this node.

    PEERS counts those that fetch or hold the blob too; RATE is over the time since the last look.
    """
    transfers = node(socket).get("/v1/transfers")["transfers"]
    if as_json:
        show_json(transfers)
        return
    show_table(TRANSFER_COLUMNS, transfer_rows(transfers), "nothing is on its way")
