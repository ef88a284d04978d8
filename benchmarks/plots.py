"""Plots of what `make bench` measured, and the part of the README that shows them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import bars
from benchmarks.readme import with_block
from benchmarks.testbed import TestbedError

__all__ = ["DOCS", "README", "add_arguments", "draw", "run", "write"]

ROOT = Path(__file__).parent.parent
DOCS, README = ROOT / "docs" / "bench", ROOT / "README.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

_COLOURS = {"p2pd": "#1a7f5a", "direct": "#c0653a", "pull-through": "#8a6bb8"}
_LIMIT = "#7b848c"
_LABEL = "one plain download"
_CURVES = ("warm-8", "cold-8", "rolling-8")

Document = Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Draw the plots of the last `make bench` again, and put them into the README."
    parser.add_argument("--results", type=Path, default=bars.RESULTS, help="what it wrote (%(default)s)")
    parser.add_argument("--docs", type=Path, default=DOCS, help="directory for the plots (%(default)s)")
    parser.add_argument("--readme", type=Path, default=README, help="what shows them (%(default)s)")


def run(options: argparse.Namespace) -> int:
    """Raises TestbedError where there is nothing to draw."""
    write(options.results, options.docs, options.readme)
    return 0


def write(results: Path, docs: Path, readme: Path) -> None:
    """Draw into `docs`, and write pictures and the table of bars between the README's marks."""
    documents = bars.load(results)
    drawn = draw(documents, docs)
    if not drawn:
        raise TestbedError(f"no updates in {results} to draw: run make bench first")
    pictures = [
        f"![{title}]({Path(os.path.relpath(path, readme.parent)).as_posix()})" for title, path in drawn
    ]
    block = "\n\n".join([*pictures, bars.markdown(bars.judge(documents))])
    readme.write_text(with_block(readme.read_text(), BEGIN, END, block))


def draw(documents: Mapping[str, Document], docs: Path) -> list[tuple[str, Path]]:
    """SVG files of what there is to draw: their titles and paths. The same figures give the same bytes."""
    import matplotlib as mpl  # takes a second to load

    by_nodes = sorted(
        (one for name, one in documents.items() if name.startswith("warm-")),
        key=lambda one: int(one["scenario"]["nodes"]),
    )
    good = [one for one in by_nodes if _of(one, "p2pd") is not None]
    curves = [one for name in _CURVES if (one := documents.get(name)) and _of(one, "p2pd") is not None]
    drawn: list[tuple[str, Path]] = []
    docs.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "p2pd", "svg.fonttype": "none", "font.size": 9}):
        if by_nodes:
            drawn.append(("Site time and WAN bytes by nodes", _by_nodes(by_nodes, docs / "nodes.svg")))
        if good:
            drawn.append(("CPU and memory of a node", _costs(good, docs / "costs.svg")))
        if curves:
            drawn.append(("Completion of each node", _curves(curves, docs / "curves.svg")))
    return drawn


def _by_nodes(documents: list[Document], path: Path) -> Path:
    figure, (times, volumes) = _panels(2)
    nodes = [one["scenario"]["nodes"] for one in documents]
    for system in _COLOURS:
        rows = [(n, _of(one, system)) for n, one in zip(nodes, documents, strict=True)]
        found = [(n, row) for n, row in rows if row is not None]
        if found:
            _line(times, system, [n for n, _ in found], [row["spread"]["site_s"] for _, row in found])
            volumes.plot(
                [n for n, _ in found],
                [row["wan_bytes"] / 1e6 for _, row in found],
                "o-",
                color=_COLOURS[system],
                label=system,
            )
    times.plot(nodes, [one["limit_s"] for one in documents], "--", color=_LIMIT, label=_LABEL)
    once = [one["limit_wan_bytes"] / 1e6 for one in documents]
    volumes.plot(nodes, once, "--", color=_LIMIT, label=_LABEL)
    _finish(times, "Seconds until the whole site is updated", "nodes")
    _finish(volumes, "MB over the WAN", "nodes")
    return _save(figure, path)


def _costs(documents: list[Document], path: Path) -> Path:
    figure, (cpu, memory) = _panels(2)
    rows = [(one["scenario"]["nodes"], _of(one, "p2pd")) for one in documents]
    found = [(n, row["spread"]) for n, row in rows if row is not None]
    nodes = [n for n, _ in found]
    for axes, figure_name, title in (
        (cpu, "cpu_ms_per_mb", "CPU of a node's p2pd, ms a MB of image"),
        (memory, "rss_mib_per_node", "Peak memory of a node's p2pd (VmHWM), MiB"),
    ):
        _line(axes, "p2pd", nodes, [row[figure_name] for row in (spread for _, spread in found)])
        _finish(axes, title, "nodes")
    return _save(figure, path)


def _curves(documents: list[Document], path: Path) -> Path:
    figure, panels = _panels(len(documents))
    for axes, one in zip(panels, documents, strict=True):
        scenario = one["scenario"]
        row = _of(one, "p2pd")
        curve = row["runs"][0]["curve"] if row is not None else {"seconds": [], "held_bytes": []}
        for held in curve["held_bytes"]:
            share = [100 * count / scenario["image_bytes"] for count in held]
            axes.plot(curve["seconds"], share, color=_COLOURS["p2pd"], alpha=0.6, linewidth=1)
        axes.axvline(one["limit_s"], linestyle="--", color=_LIMIT)
        what = f"{scenario['nodes']} nodes, {scenario['seeder']}, {scenario['arrival']}"
        _finish(axes, f"% of the image at each node: {what}", "seconds", legend=False)
    return _save(figure, path)


def _panels(count: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * count, 3), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _line(axes: Any, system: str, nodes: list[int], spreads: list[Mapping[str, float]]) -> None:
    """Medians, with bars from least to most."""
    middle = [one["median"] for one in spreads]
    below = [one["median"] - one["min"] for one in spreads]
    above = [one["max"] - one["median"] for one in spreads]
    colour = _COLOURS[system]
    axes.errorbar(nodes, middle, yerr=[below, above], fmt="o-", color=colour, capsize=3, label=system)


def _finish(axes: Any, title: str, unit: str, *, legend: bool = True) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(unit)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False)


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def _of(document: Document, system: str) -> Document | None:
    """A system's results, where they are good."""
    found = [one for one in document["results"] if one["system"] == system and one["verified"]]
    return found[0] if found else None
