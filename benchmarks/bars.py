"""The figures that were promised, beside what was measured: `bars`, and the last word of `make bench`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.outcome import aligned, readable
from benchmarks.testbed import TestbedError

__all__ = ["BARS", "RESULTS", "Bar", "Verdict", "add_arguments", "judge", "load", "markdown", "run", "table"]

RESULTS = Path(__file__).parent / "results"

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise about one figure of one row; judged is the median over its repetitions.

    `row` names the row's file in the results; in an update's the figure is p2pd's.
    """

    row: str
    figure: str
    what: str
    limit: float
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was measured for a bar: least, median, most (all None where it was not), and what of it."""

    bar: Bar
    values: tuple[float, float, float] | None
    word: str

    @property
    def missed(self) -> bool:
        return self.word.startswith("missed")


# A busy machine makes nothing of these larger, and so excuses none.
_APART_FROM_CPU = {"rss_mib", "rss_growth_mib", "rss_mib_per_node", "seeder_rss_mib", "late_wan_blob_bytes"}

_TIMES = [(1, 1.03), (2, 1.03), (8, 1.04), (16, 1.05)]

BARS: tuple[Bar, ...] = (
    *(Bar(f"warm-{n}", "limit_ratio", f"{n} node(s), warm: site / limit", most) for n, most in _TIMES),
    *(Bar(f"cold-{n}", "limit_ratio", f"{n} nodes, cold: site / limit", 1.08) for n in (2, 8)),
    *(Bar(f"warm-{n}", "wan_ratio", f"{n} node(s), warm: WAN bytes / once", 1.02) for n, _ in _TIMES),
    *(Bar(f"cold-{n}", "wan_ratio", f"{n} nodes, cold: WAN bytes / once", 1.02) for n in (2, 8)),
    Bar("warm-16", "speed_up", "16 nodes: times as fast as direct", 14.5, at_least=True),
    Bar("half-16", "limit_ratio", "16 nodes, warm, half the rate: site / limit", 1.05),
    Bar("half-16", "wan_ratio", "16 nodes, warm, half the rate: WAN bytes / once", 1.02),
    Bar("half-16", "speed_up", "16 nodes, half the rate: times as fast as direct", 14.5, at_least=True),
    Bar("rolling-8", "last_wait_ratio", "a node every 2 s: the last one's wait / limit", 1.05),
    Bar("rolling-8", "wan_ratio", "a node every 2 s: WAN bytes / once", 1.02),
    Bar("late-4", "late_wan_blob_bytes", "late node: bytes of content over the WAN", 0),
    Bar("late-4", "late_lan_ratio", "late node: time / (bytes / LAN rate)", 1.3),
    Bar("large", "limit_ratio", "5 GiB layer: site / limit", 1.05),
    Bar("large", "rss_mib_per_node", "5 GiB layer: node's peak memory, MiB", 150e6 / (1 << 20)),
    Bar("large", "seeder_rss_mib", "5 GiB layer: seeder's peak memory, MiB", 150e6 / (1 << 20)),
    Bar("bare-8", "ratio", "CPU of a node of 8 / bare libtorrent's", 1.4),
    Bar("idle", "rss_mib", "idle: resident memory, MiB", 60),
    Bar("idle", "cpu_percent", "idle: CPU, % of a core", 0.5),
    Bar("idle", "ready_s", "exec to ready, s", 1.0),
    Bar("hit", "mb_s", "held layer served, MB/s", 800, at_least=True),
    Bar("hit", "ttfb_ms", "held manifest, time to first byte, ms", 3),
    Bar("held", "ready_s", "5,000 blobs held: exec to ready, s", 3),
    Bar("held", "rss_growth_mib", "5,000 blobs held: more memory, MiB", 20e6 / (1 << 20)),
    Bar("unpack", "ratio", "pull / (fetch alone + unpack alone)", 1.0),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Show every bar beside what the last `make bench` measured for it: the median of the repetitions\n"
        "(judged) and their spread. A miss in a run that this machine's CPU bounded is told apart; so is\n"
        "what was measured while others used the machine. Exit code: 1 where a bar was missed, else 0."
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="what was written (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts there too")


def run(options: argparse.Namespace) -> int:
    """Raises TestbedError where nothing was measured."""
    verdicts = judge(load(options.results))
    if all(verdict.values is None for verdict in verdicts):
        raise TestbedError(f"no results in {options.results}: run make bench first")
    print("\n".join(table(verdicts)))
    if options.json is not None:
        options.json.write_text(json.dumps(document(verdicts), indent=2) + "\n")
    return 1 if any(verdict.missed for verdict in verdicts) else 0


def load(results: Path) -> dict[str, Document]:
    """Every row's document by its name. Raises TestbedError for a file that is none."""
    found = {}
    for path in sorted(results.glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise TestbedError(f"{path} cannot be read ({error}); delete it and run its row again") from error
    return found


def judge(documents: Mapping[str, Document], bars: Sequence[Bar] = BARS) -> list[Verdict]:
    """What holds, in the order of the bars."""
    return [_verdict(bar, documents.get(bar.row)) for bar in bars]


def table(verdicts: Sequence[Verdict]) -> list[str]:
    return aligned(_HEADS, [_cells(verdict) for verdict in verdicts])


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The table for a README, without what was not measured."""
    rows = [_cells(verdict) for verdict in verdicts if verdict.values is not None]
    lines = ["| " + " | ".join(cells) + " |" for cells in [_HEADS, *rows]]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(_HEADS) - 1), *lines[1:]])


def document(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    return [
        {
            "row": verdict.bar.row,
            "figure": verdict.bar.figure,
            "what": verdict.bar.what,
            "bar": verdict.bar.limit,
            "at_least": verdict.bar.at_least,
            "measured": None if verdict.values is None else verdict.values[1],
            "spread": verdict.values,
            "verdict": verdict.word,
        }
        for verdict in verdicts
    ]


_HEADS = ["", "bar", "measured", "from", "to", "verdict"]


def _cells(verdict: Verdict) -> list[str]:
    bar = verdict.bar
    limit = f"{'>=' if bar.at_least else '<='} {_figure(bar.limit)}"
    if verdict.values is None:
        return [bar.what, limit, "-", "-", "-", verdict.word]
    least, median, most = map(_figure, verdict.values)
    return [bar.what, limit, median, least, most, verdict.word]


def _figure(value: float) -> str:
    """Ratios near 1 to three places: that is where the bars are."""
    return f"{value:.3f}" if 0.5 <= value < 3 else readable(value)


def _verdict(bar: Bar, row: Document | None) -> Verdict:
    if row is None:
        return Verdict(bar, None, "not measured")
    part = row if "spread" in row else _p2pd(row)
    found = part.get("spread", {}).get(bar.figure)
    if part.get("verified") is False:
        return Verdict(bar, None, "missed: the run failed")
    if found is None:
        return Verdict(bar, None, "not measured")
    median = found["median"]
    met = median >= bar.limit if bar.at_least else median <= bar.limit
    word = "met" if met else "missed"
    if bar.figure not in _APART_FROM_CPU:
        word += ", CPU-bound" * (not met and bool(part.get("cpu_bound"))) + ", not quiet" * _noisy(row)
    return Verdict(bar, (found["min"], median, found["max"]), word)


def _p2pd(row: Document) -> Document:
    results: list[Document] = [one for one in row.get("results", []) if one.get("system") == "p2pd"]
    return results[0] if results else {}


def _noisy(row: Document) -> bool:
    if "noisy" in row:
        return bool(row["noisy"])
    runs = _p2pd(row).get("runs", [])
    return any(one.get("load", {}).get("noisy", False) for one in runs)
