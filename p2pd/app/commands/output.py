"""How every command of `p2pd` and `p2pd-seeder` speaks: tables, JSON, one line an error, exit codes.

Data goes to stdout, everything else to stderr. Without a terminal there is no colour, no drawing and no
cutting to its width: each row of a table is one line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from p2pd.app.launch import explain

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "Json",
    "age",
    "console",
    "fail",
    "new_app",
    "new_group",
    "plain",
    "run_app",
    "short",
    "show",
    "show_json",
    "show_line",
    "show_table",
    "size",
    "table_of",
]

FAILED = 1
EXIT_CODES = (
    "Exit status: 0 done; 1 it failed, one line on stderr says why; 2 a mistake in the call or the "
    "configuration; 3 no daemon answers; 130 interrupted."
)

Json = Annotated[bool, typer.Option("--json", help="Print the data as JSON, for programs.")]
"""The option that every command has."""

_NO_TERMINAL_WIDTH = 10_000


def new_app(about: str, version: str, epilog: str = EXIT_CODES) -> typer.Typer:
    """An application without commands yet, with --version; `about` heads its help."""
    app = typer.Typer(
        help=about,
        epilog=epilog,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )

    def tell(wanted: bool) -> None:
        if wanted:
            print(version)
            raise typer.Exit

    @app.callback()
    def root(
        # Not Annotated: typer evaluates that in the module, where `tell` is not known.
        _version: bool = typer.Option(
            False, "--version", callback=tell, is_eager=True, help="Show the version and exit."
        ),
    ) -> None:
        pass

    return app


def new_group(about: str) -> typer.Typer:
    """Commands below one word, for `app.add_typer(group, name=…)`."""
    return typer.Typer(help=about, no_args_is_help=True, rich_markup_mode=None)


def run_app(app: typer.Typer, program: str, words: Sequence[str]) -> int:
    """Read the call, do it, and give the exit status; a mistake in the call is one line on stderr."""
    command = typer.main.get_command(app)
    status: list[object] = []

    def work() -> None:
        status.append(command.main(args=list(words), prog_name=program, standalone_mode=False))

    try:
        explained = explain(program, work)
    except typer.TyperException as error:
        return _refuse(program, error)
    except typer.Abort:
        return 130
    except SystemExit as stop:  # typer's own way out: completion, or a reader that left (`… | head`)
        return stop.code if isinstance(stop.code, int) else FAILED
    code = status[0] if status else explained
    return code if isinstance(code, int) else 0


def _refuse(program: str, error: typer.TyperException) -> int:
    """One line; only a call without any command gets the help, which is then the error's own text."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if message.count("\n") > 1:
        print(message, file=sys.stderr)
    else:
        asked = context.command_path if context is not None else program
        print(f"{program}: {message.rstrip('.')}; see {asked} --help", file=sys.stderr)
    return error.exit_code


def fail(status: int = FAILED) -> typer.Exit:
    """To be raised by a command whose output has said already what failed."""
    return typer.Exit(status)


def console(*, stderr: bool = False) -> Console:
    """Where to print for people; each call sees the streams of this moment."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _NO_TERMINAL_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def show(what: RenderableType) -> None:
    """Print it, without the blanks that fill a table's last column."""
    out = console()
    with out.capture() as captured:
        out.print(what)
    for line in captured.get().splitlines():
        print(line.rstrip(), file=out.file)


def show_json(value: Any) -> None:
    """Data for programs: indented, keys in their order, one trailing newline."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_line(value: Any) -> None:
    """One line of a stream for programs, out at once."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Rows under a head; `empty` is said instead when there is none. A column named "…>" is right-aligned."""
    listed = [list(row) for row in rows]
    if listed:
        show(table_of(columns, listed))
    else:
        console(stderr=True).print(empty)


def table_of(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """The same, to be printed by the caller."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.removesuffix(">"), justify="right" if column.endswith(">") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    return table


def plain(value: object) -> str:
    """A value as text that cannot steer the terminal: names and reasons come from the network."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else ascii(text)[1:-1]


def short(digest: str) -> str:
    """A digest as people tell them apart."""
    return digest.removeprefix("sha256:")[:12]


def size(count: float) -> str:
    """Bytes for people, in powers of 1000 as networks count: 999 B, 1.2 kB, 34.5 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5 or unit == "TB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def age(seconds: float) -> str:
    """A length of time for people, in its largest unit: 45s, 12m, 3h, 9d."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"
