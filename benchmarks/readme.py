"""Results of the demo as the README shows them: a Markdown table for each run, and one picture.

What stands between the two marks in the README is replaced; nothing else is touched.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sizes import readable_bytes, readable_rate
from benchmarks.testbed import TestbedError

__all__ = ["add_arguments", "run", "table", "with_block", "with_measured"]

BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"

_HEAD = (
    "| | site updated | over the WAN | each byte crossed | speed-up | CPU/node | memory/node |\n"
    "|---|---:|---:|---:|---:|---:|---:|"
)
_FLOOR = "one download"
_COLOURS = {"p2pd": "#1a7f5a", _FLOOR: "#b8bfc6"}
_OTHERS = "#c0653a"

Document = Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="written by demo --json")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="file to write into")
    parser.add_argument(
        "--picture", type=Path, metavar="SVG", help="also draw the first FILE, and show it there"
    )


def run(options: argparse.Namespace) -> int:
    """Write tables (and a picture) into the README. Raises TestbedError, and then writes nothing."""
    documents = [_load(path) for path in options.files]
    text = _read(options.readme)
    block = "\n\n".join(table(document) for document in documents)
    if options.picture is not None:
        shown = Path(os.path.relpath(options.picture, options.readme.parent)).as_posix()
        block = f"![Update of a site, compared]({shown})\n\n{block}"
    text = with_measured(text, block)
    if options.picture is not None:
        draw(documents[0], options.picture)
    options.readme.write_text(text)
    return 0


def table(document: Document) -> str:
    """One run in Markdown: what was run, a row for each system, the yardstick."""
    scenario, results = document["scenario"], document["results"]
    floor_s, floor_bytes = _floor(document)
    slowest = max(result["site_s"] for result in results)
    rows = [_row(result, slowest) for result in results]
    rows.append(f"| {_FLOOR} | {floor_s:.1f} s | {readable_bytes(floor_bytes)} | 1.00 x | | | |")
    unpacked = " and unpacked" if scenario["client"] == "pull" else ""
    said = (
        f"{scenario['nodes']} nodes, WAN {readable_rate(scenario['wan_bit_s'])}, "
        f"LAN {readable_rate(scenario['lan_bit_s'])}, {scenario['image']} image of "
        f"{readable_bytes(scenario['image_bytes'])} in {scenario['layers']} layers, "
        f"fetched{unpacked} by containerd, {scenario['seeder']} seeder:"
    )
    return "\n".join([said, "", _HEAD, *rows])


def with_measured(text: str, block: str) -> str:
    """`text` with `block` between the marks; raises TestbedError where they are not."""
    return with_block(text, BEGIN, END, block)


def with_block(text: str, begin: str, end: str, block: str) -> str:
    """`text` with `block` between two marks; raises TestbedError where they are not."""
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise TestbedError(f"the README has no {begin} … {end}: put both where the figures belong")
    return f"{before}{begin}\n{block}\n{end}{after}"


def draw(document: Document, path: Path) -> None:
    """Bars of time and of WAN use, as SVG; the same bytes from the same results."""
    import matplotlib as mpl  # takes a second to load, and the demo needs none of it
    from matplotlib.figure import Figure

    results, floor_s = document["results"], document["limit_s"]
    names = [*(result["system"] for result in results), _FLOOR]
    colours = [_COLOURS.get(name, _OTHERS) for name in names]
    panels: Sequence[tuple[str, list[float], str]] = (
        ("Seconds until the whole site is updated", [*(r["site_s"] for r in results), floor_s], "{:.1f} s"),
        ("Times that each byte crossed the WAN", [*(r["wan_ratio"] for r in results), 1.0], "{:.2f} x"),
    )
    with mpl.rc_context({"svg.hashsalt": "p2pd", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(9, 0.5 + 0.42 * len(names)), layout="constrained")
        for axes, (title, values, shape) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
            bars = axes.barh(names, values, color=colours)
            axes.bar_label(bars, [shape.format(value) for value in values], padding=3)
            axes.set_title(title, fontsize=10)
            axes.set_xlim(0, 1.2 * max(values))
            axes.xaxis.set_visible(False)
            axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.invert_yaxis()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _load(path: Path) -> Document:
    try:
        document: Document = json.loads(_read(path))
        broken = [result["system"] for result in document["results"] if not result["verified"]]
        if not broken:
            table(document)
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise TestbedError(f"{path} is not a result of demo --json: {error!r}") from error
    if broken:
        raise TestbedError(f"{path}: {broken[0]} failed in this run; only runs that went well are shown")
    return document


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise TestbedError(f"{path} cannot be read: {error.strerror}") from error


def _floor(document: Document) -> tuple[float, float]:
    if not document["results"]:
        raise ValueError("it has no results")
    first = document["results"][0]
    return document["limit_s"], first["wan_bytes"] / first["wan_ratio"]


def _row(result: Document, slowest: float) -> str:
    name = f"**{result['system']}**" if result["system"] == "p2pd" else result["system"]
    cpu, memory = result["cpu_s_per_node"], result["rss_mib_per_node"]
    cells = [
        name,
        f"{result['site_s']:.1f} s",
        readable_bytes(result["wan_bytes"]),
        f"{result['wan_ratio']:.2f} x",
        f"{slowest / result['site_s']:.1f} x",
        "" if cpu is None else f"{cpu:.1f} s",
        "" if memory is None else f"{memory:.0f} MiB",
    ]
    return "| " + " | ".join(cells) + " |"
