"""Results for people (table, bars) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure import Floor, SystemResult

__all__ = ["Report", "parse_bytes", "parse_rate", "readable_bytes", "readable_rate"]

_BAR = 44
_LEAKY = 1.5
_LEAK = (
    "pull-through: this registry sends every request for a blob that it does not hold yet on to the origin;\n"
    "nodes that update at the same time therefore share nothing of it."
)
_MEASURES = {"K": 1, "M": 2, "G": 3}


@dataclass(frozen=True, slots=True)
class Report:
    """What was run, and what came out."""

    nodes: int
    image: str
    image_bytes: int
    layers: int
    wan_bit_s: int
    lan_bit_s: int
    client: str
    seeder: str
    floor: Floor
    results: Sequence[SystemResult]

    def document(self) -> dict[str, object]:
        """The JSON document: seconds, bytes, bits a second."""
        return {
            "scenario": {
                "nodes": self.nodes,
                "image": self.image,
                "image_bytes": self.image_bytes,
                "layers": self.layers,
                "wan_bit_s": self.wan_bit_s,
                "lan_bit_s": self.lan_bit_s,
                "client": self.client,
                "seeder": self.seeder,
            },
            "limit_s": self.floor.seconds,
            "results": [_result_document(result) for result in self.results],
        }

    def text(self) -> str:
        """Table and bars."""
        lines = [
            f"{self.nodes} nodes, WAN {readable_rate(self.wan_bit_s)}, LAN {readable_rate(self.lan_bit_s)}; "
            f"{self.image} image of {readable_bytes(self.image_bytes)}, layers: {self.layers}",
            "",
            f"{'':14}{'site updated':>14}{'over the WAN':>15}{'each byte crossed':>20}{'speed-up':>11}"
            f"{'CPU/node':>11}{'memory/node':>13}  content",
        ]
        slowest = max((result.site_s for result in self.results if result.verified), default=0.0)
        lines += [_row(result, slowest) for result in self.results]
        lines.append(
            f"{'(one download)':14}{self.floor.seconds:>12.1f} s{readable_bytes(self.floor.wan_bytes):>15}"
            f"{'1.00 x':>20}"
        )
        times = {result.system: result.site_s for result in self.results if result.verified}
        volumes = {result.system: float(result.wan_bytes) for result in self.results if result.verified}
        one = "(one download)"
        lines += _bars("Time until the whole site is updated", times | {one: self.floor.seconds}, "{:.1f} s")
        crossed = {name: volume / self.floor.wan_bytes for name, volume in volumes.items()}
        lines += _bars("Times that each byte crossed the WAN", crossed | {one: 1.0}, "{:.2f} x")
        if any(result.system == "pull-through" and result.wan_ratio > _LEAKY for result in self.results):
            lines += ["", _LEAK]
        if not all(result.verified for result in self.results):
            lines.append("")
        lines += [f"FAILED {result.system}: {error}" for result in self.results for error in result.errors]
        return "\n".join(lines)


def parse_bytes(text: str) -> int:
    """`160M` is 160 MiB; raises ValueError."""
    return _parse(text, 1024)


def parse_rate(text: str) -> int:
    """`100M` is 100 Mbit/s; raises ValueError."""
    return _parse(text, 1000)


def readable_bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def readable_rate(bit_s: float) -> str:
    return f"{bit_s / 1e9:g} Gbit/s" if bit_s >= 1e9 else f"{bit_s / 1e6:g} Mbit/s"


def _parse(text: str, base: int) -> int:
    power = _MEASURES.get(text[-1:].upper(), 0)
    value = float(text[:-1] if power else text) * base**power
    if not 1 <= value < float("inf"):
        raise ValueError(f"{text!r} is not a number above zero")
    return int(value)


def _result_document(result: SystemResult) -> dict[str, object]:
    return {
        "system": result.system,
        "site_s": result.site_s,
        "node_s": result.node_s,
        "wan_bytes": result.wan_bytes,
        "wan_ratio": result.wan_ratio,
        "cpu_s_per_node": result.cpu_s_per_node,
        "rss_mib_per_node": result.rss_mib_per_node,
        "containerd_cpu_s_per_node": result.containerd_cpu_s_per_node,
        "verified": result.verified,
    }


def _row(result: SystemResult, slowest: float) -> str:
    if not result.verified:
        return f"{result.system:14}{'failed':>14}"
    cpu = "" if result.cpu_s_per_node is None else f"{result.cpu_s_per_node:.1f} s"
    memory = "" if result.rss_mib_per_node is None else f"{result.rss_mib_per_node:.0f} MiB"
    speed_up = slowest / result.site_s
    return (
        f"{result.system:14}{result.site_s:>12.1f} s{readable_bytes(result.wan_bytes):>15}"
        f"{result.wan_ratio:>18.2f} x{speed_up:>9.1f} x{cpu:>11}{memory:>13}  verified"
    )


def _bars(title: str, values: dict[str, float], shape: str) -> list[str]:
    largest = max(values.values())
    lines = ["", title]
    for name, value in values.items():
        bar = "█" * max(1, round(_BAR * value / largest))
        lines.append(f"  {name:14} {bar} {shape.format(value)}")
    return lines
