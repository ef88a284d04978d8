"""`p2pd pull`: bring images to the node before a runtime asks for them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from p2pd.app.commands.asking import Socket, node
from p2pd.app.commands.output import Json, console, fail, plain, short, show_line, size
from p2pd.model.errors import NotRunning, P2pdError, UserMistake

__all__ = ["register"]

_FILE_LIMIT = 1024 * 1024

References = Annotated[
    list[str] | None,
    typer.Argument(metavar="REF", help="Images: [registry/]name[:tag][@digest].", show_default=False),
]
Platform = Annotated[
    str | None,
    typer.Option(
        metavar="OS/ARCH[/VARIANT]",
        help="Of a multi-platform image take this one, or all. Default: this node's own.",
    ),
]
FromFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Read more images from a file, one a line, # for comments; - is stdin."
    ),
]


def register(app: typer.Typer) -> None:
    app.command("pull")(_pull)


def _pull(
    references: References = None,
    platform: Platform = None,
    from_file: FromFile = None,
    as_json: Json = False,
    socket: Socket = None,
) -> None:
    """Bring images to this node, ahead of need.

    It does what a container runtime does, without one: the tag is resolved, then manifest, config and
    layers are fetched from the site or over the WAN and kept in p2pd's store, from where a later pull of
    the runtime is served. What is held already costs nothing. After Ctrl-C, blobs that have begun are
    finished in the background.

    With several images each is tried, and one that failed is told in one line. With --json, one line of
    JSON an event. Names are read as Docker does: without a registry the default one, without a tag latest.

    p2pd pull docker.io/library/alpine:3.20 --platform linux/arm64
    """
    wanted = [*(references or []), *(_read(from_file) if from_file is not None else [])]
    if not wanted:
        raise UserMistake("no image is named; see p2pd pull --help")
    failures = 0
    for reference in wanted:
        order = {"reference": reference, "platform": platform}
        try:
            events = node(socket).stream("/v1/pull", order)
            _tell_json(reference, events) if as_json else _tell(reference, events)
        except NotRunning:
            raise
        except P2pdError as error:
            if len(wanted) == 1:
                raise
            failures += 1
            print(f"p2pd: {plain(reference)}: {error}", file=sys.stderr)
    if failures:
        raise fail()


def _read(path: Path) -> list[str]:
    try:
        with sys.stdin if str(path) == "-" else path.open(encoding="utf-8") as file:
            text = file.read(_FILE_LIMIT)
    except (OSError, UnicodeDecodeError) as error:
        raise UserMistake(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _tell_json(reference: str, events: Iterable[dict[str, Any]]) -> None:
    for event in events:
        show_line({"reference": reference, **event})


def _tell(reference: str, events: Iterable[dict[str, Any]]) -> None:
    """A bar a blob on a terminal, else a line a blob; what it came to is said last."""
    out, end = console(), ""
    with _bars(out) as bars:
        for event in events:
            if bars is not None:
                bars.take(event)
            match event["event"]:
                case "resolved":
                    stale = ", from memory: nobody upstream could confirm it" if event.get("stale") else ""
                    out.print(f"{plain(reference)} is {plain(event['digest'])}{stale}")
                case "held" if bars is None:
                    out.print(f"{plain(event['digest'])} {size(event['size'])}")
                case "done":
                    end = f"held whole: {size(event['size'])} in {event['seconds']:.1f} s"
    out.print(end)


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def take(self, event: dict[str, Any]) -> None:
        digest = event.get("digest", "")
        match event["event"]:
            case "plan":
                self._tasks[digest] = self._progress.add_task(short(digest), total=event["size"])
            case "progress":
                self._progress.update(self._tasks[digest], completed=event["have"])
            case "held":
                self._progress.update(self._tasks[digest], completed=event["size"])


@contextmanager
def _bars(out: Console) -> Iterator[_Bars | None]:
    if not out.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=out) as progress:
        yield _Bars(progress)
