"""`make bench`: every row that a bar is about, one JSON file each; then the bars and the plots.

A row is a command of this package, run as a program of its own, so that one that breaks leaves the
others whole. A site of 16 wants some 35 ms of CPU for each MB of image and node, clients included: at the
rate of the others that is more than half of what two quick cores have, and all of two slow ones. So it is
measured at half of it, too (`half-16`), where it is the network that is measured and not the machine.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import bars, plots
from benchmarks.sizes import argument, parse_rate
from benchmarks.testbed import TestbedError

__all__ = ["ROWS", "Row", "add_arguments", "run", "words_of"]

_ALL = "direct,pull-through,p2pd"
_LATE_LAN = "100M"
_TEARDOWN_S = 30.0


@dataclass(frozen=True, slots=True)
class Row:
    """A command's words; `sized` ones also get --size, --wan (a `share` of it) and --repeat of the matrix."""

    name: str
    words: tuple[str, ...]
    sized: bool = True
    long: bool = False
    share: float = 1.0


ROWS: tuple[Row, ...] = (
    *(Row(f"warm-{n}", ("update", "--nodes", str(n), "--systems", _ALL)) for n in (1, 2, 4, 8, 16)),
    Row("half-16", ("update", "--nodes", "16", "--systems", "direct,p2pd"), share=0.5),
    *(
        Row(f"cold-{n}", ("update", "--nodes", str(n), "--seeder", "cold", "--systems", "p2pd"))
        for n in (2, 8)
    ),
    Row(
        "rolling-8",
        ("update", "--nodes", "8", "--layers", "8", "--arrival", "rolling:2", "--systems", "p2pd"),
    ),
    Row(
        "late-4",
        ("update", "--nodes", "4", "--lan", _LATE_LAN, "--arrival", "late:1", "--systems", "p2pd"),
    ),
    Row("bare-8", ("bare", "--nodes", "8")),
    Row("unpack", ("unpack", "--nodes", "2", "--size", "64M"), sized=False),
    Row("idle", ("idle",), sized=False),
    Row("hit", ("hit",), sized=False),
    Row("held", ("held",), sized=False),
    Row("large", ("large",), sized=False, long=True),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Run every row, write one JSON file each, show the bars beside what was measured, draw the plots.\n"
        "The defaults take about two hours, most of it the ways of today with 16 nodes. Leave the machine\n"
        "alone meanwhile: what others use of it is told in the table."
    )
    names = ", ".join(row.name for row in ROWS)
    parser.add_argument("--rows", metavar="ROW,…", help=f"only these, of {names} (all but the long: large)")
    parser.add_argument("--size", default="32M", help="size of the image in the rows of updates (32M)")
    rate = argument(parse_rate, "16M (bit/s)")
    parser.add_argument("--wan", type=rate, default="16M", help="WAN in them, bit/s (16M)")
    parser.add_argument("--repeat", type=int, default=2, help="how often each (2)")
    parser.add_argument("--results", type=Path, default=bars.RESULTS, help="directory (%(default)s)")
    parser.add_argument("--docs", type=Path, default=plots.DOCS, help="where plots go (%(default)s)")
    parser.add_argument("--readme", type=Path, default=plots.README, help="what shows them (%(default)s)")


def run(options: argparse.Namespace) -> int:
    """Exit code: 1 where a row failed or a bar was missed. Raises TestbedError."""
    rows = _chosen(options.rows)
    # A row is a session of its own: told to stop, the matrix must stop it as an interrupt would.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options.results.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    failed = []
    columns = [TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, TextColumn("{task.fields[said]}"), console=console) as progress:
        task = progress.add_task("", total=len(rows), said="")
        for row in rows:
            progress.update(task, description=row.name, said="")
            why = _play(row, options, lambda said: progress.update(task, said=said))
            if why is not None:
                failed.append(row.name)
                console.print(f"{row.name} failed: {why}", markup=False)
            progress.advance(task)
    verdicts = bars.judge(bars.load(options.results))
    print("\n".join(bars.table(verdicts)))
    plots.write(options.results, options.docs, options.readme)
    return 1 if failed or any(verdict.missed for verdict in verdicts) else 0


def words_of(row: Row, options: argparse.Namespace) -> list[str]:
    """The row's command line, without the program."""
    words = [*row.words]
    if row.sized:
        words += ["--size", options.size, "--wan", f"{options.wan * row.share:.0f}"]
    if not row.long:
        words += ["--repeat", str(options.repeat)]
    return words


def _chosen(names: str | None) -> list[Row]:
    if names is None:
        return [row for row in ROWS if not row.long]
    known = {row.name: row for row in ROWS}
    if unknown := [name for name in names.split(",") if name not in known]:
        raise TestbedError(f"no such row: {unknown[0]}; choose of {', '.join(known)}")
    return [known[name] for name in names.split(",")]


def _play(row: Row, options: argparse.Namespace, say: Callable[[str], None]) -> str | None:
    """Run one row to its end; why it failed, if it did. A row that broke leaves no old file."""
    final = options.results / f"{row.name}.json"
    made = options.results / f"{row.name}.new"
    command = [sys.executable, "-m", "benchmarks", *words_of(row, options), "--json", str(made)]
    last = ""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        try:
            assert child.stderr is not None
            for line in child.stderr:
                last = line.strip() or last
                say(last[:100])
            code = child.wait()
        except BaseException:
            # It takes its testbed down; Popen's own exit would not wait for that after an interrupt.
            child.send_signal(signal.SIGINT)
            try:
                child.wait(_TEARDOWN_S)
            except subprocess.TimeoutExpired:
                child.kill()
            raise
    final.unlink(missing_ok=True)
    if made.exists() and made.stat().st_size:
        made.replace(final)  # an update that failed is a result too, and says so
    else:
        made.unlink(missing_ok=True)
    return (last or f"exit code {code}") if code else None
