"""What a measurement that was repeated comes to: figures with their spread, as JSON and as a table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import Load, machine_document
from benchmarks.sizes import readable_rate
from benchmarks.testbed import Image, TestbedError

__all__ = ["Outcome", "aligned", "check_writable", "save", "scenario_of", "spread", "spreads"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`runs` has the same figures for each repetition; `labels` says what each one is, unit included.

    Not `judged` for its CPU is what means to take all of it, such as serving as fast as can be.
    """

    command: str
    scenario: Mapping[str, object]
    labels: Mapping[str, str]
    runs: Sequence[Mapping[str, float]]
    loads: Sequence[Load] = ()
    judged: bool = True
    machine: Mapping[str, object] = field(default_factory=machine_document)

    @property
    def cpu_bound(self) -> bool:
        return self.judged and any(load.cpu_bound for load in self.loads)

    def document(self) -> dict[str, object]:
        return {
            "command": self.command,
            "scenario": dict(self.scenario),
            "machine": dict(self.machine),
            "cpu_bound": self.cpu_bound,
            "noisy": any(load.noisy for load in self.loads),
            "spread": spreads(self.runs),
            "labels": dict(self.labels),
            "runs": [dict(run) for run in self.runs],
            "loads": [load.document() for load in self.loads],
        }

    def text(self) -> str:
        """One table, and what must be known to read it."""
        said = ", ".join(f"{name} {value}" for name, value in self.scenario.items())
        found = spreads(self.runs)
        rows = [
            [label, *(readable(found[name][key]) for key in ("median", "min", "max"))]
            for name, label in self.labels.items()
            if name in found
        ]
        lines = [
            f"{self.command}: {said}; runs: {len(self.runs)}",
            "",
            *aligned(["", "median", "min", "max"], rows),
        ]
        if self.cpu_bound:
            lines.append("CPU-BOUND: this machine had no CPU to spare; its times are the machine's")
        noise = max((load.background for load in self.loads if load.noisy), default=0.0)
        if noise:
            lines.append(f"NOT QUIET: {noise:.0%} of this machine was in use before a clock started")
        return "\n".join(lines)

    def finish(self, out: Path | None) -> int:
        """Print, write the JSON where asked for; the exit code."""
        if out is not None:
            save(self.document(), out)
        print(self.text())
        return 0


def scenario_of(image: Image, nodes: int, wan_bit_s: int) -> dict[str, object]:
    """What is measured: an image, and the site that gets it."""
    return {
        "nodes": nodes,
        "image_bytes": image.blob_bytes,
        "layers": len(image.blobs) - 1,
        "WAN": readable_rate(wan_bit_s),
    }


def spread(values: Iterable[float]) -> dict[str, float] | None:
    """Least, median and most of some values; None of none."""
    found = sorted(values)
    if not found:
        return None
    return {"min": found[0], "median": statistics.median(found), "max": found[-1]}


def spreads(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """By name, of those that every run has."""
    found = {}
    for name in runs[0] if runs else ():
        if (one := spread(run[name] for run in runs if name in run)) is not None:
            found[name] = one
    return found


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    table = [list(heads), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def readable(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def check_writable(path: Path | None) -> None:
    """Before minutes of work, not after. Raises TestbedError."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise TestbedError(f"--json {path}: {error.strerror}; name a file that can be written") from error


def save(document: object, path: Path) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n")
