"""Results for people (table, bars) and for programs (JSON)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.machine import CPU_BOUND, machine_document
from benchmarks.measure import Floor, SystemResult
from benchmarks.outcome import spread
from benchmarks.sizes import readable_bytes, readable_rate

__all__ = ["Report", "Round"]

_BAR = 44
_LEAKY = 1.5
_LEAK = (
    "pull-through: this registry sends every request for a blob that it does not hold yet on to the origin;\n"
    "nodes that update at the same time therefore share nothing of it."
)


@dataclass(frozen=True, slots=True)
class Round:
    """The plain download and every system, once each, one after the other."""

    floor: Floor
    results: Sequence[SystemResult]


@dataclass(frozen=True, slots=True)
class Report:
    """What was run, and what came out of each repetition."""

    nodes: int
    image: str
    image_bytes: int
    layers: int
    wan_bit_s: int
    lan_bit_s: int
    client: str
    seeder: str
    rounds: Sequence[Round]
    arrival: str = "together"
    machine: Mapping[str, object] = field(default_factory=machine_document)

    @property
    def limit_s(self) -> float:
        """The plain download's seconds: the median over the rounds."""
        return statistics.median(one.floor.seconds for one in self.rounds)

    @property
    def results(self) -> list[SystemResult]:
        """For each system the run that stands for all: the one that failed, else that of median time."""
        return [_typical([result for _, result in runs]) for runs in self._by_system()]

    @property
    def verified(self) -> bool:
        """Whether every node of every run holds the right bytes."""
        return all(result.verified for one in self.rounds for result in one.results)

    def document(self) -> dict[str, object]:
        """The JSON document: seconds, bytes, bits a second; shares and ratios as multiples of 1."""
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
                "arrival": self.arrival,
                "repeats": len(self.rounds),
            },
            "machine": dict(self.machine),
            "limit_s": self.limit_s,
            "limits": [one.floor.seconds for one in self.rounds],
            "limit_wan_bytes": statistics.median(one.floor.wan_bytes for one in self.rounds),
            "results": [self._system_document(runs) for runs in self._by_system()],
        }

    def text(self) -> str:
        """Table and bars, and what must be known to read them."""
        results = self.results
        lines = [
            f"{self.nodes} nodes, WAN {readable_rate(self.wan_bit_s)}, LAN {readable_rate(self.lan_bit_s)}; "
            f"{self.image} image of {readable_bytes(self.image_bytes)}, layers: {self.layers}; "
            f"{self.seeder} seeder, arrival {self.arrival}"
            + (f"; median of {len(self.rounds)} runs" if len(self.rounds) > 1 else ""),
            "",
            f"{'':14}{'site updated':>14}{'/ limit':>9}{'over the WAN':>15}{'each byte crossed':>20}"
            f"{'speed-up':>11}{'CPU/node':>11}{'memory/node':>13}  content",
        ]
        slowest = max((result.site_s for result in results if result.verified), default=0.0)
        lines += [self._row(result, slowest) for result in results]
        wan_bytes = statistics.median(one.floor.wan_bytes for one in self.rounds)
        once = f"{'1.000':>9}{readable_bytes(wan_bytes):>15}{'1.00 x':>20}"
        lines.append(f"{'(one download)':14}{self.limit_s:>12.1f} s{once}")
        times = {result.system: result.site_s for result in results if result.verified}
        crossed = {result.system: result.wan_ratio for result in results if result.verified}
        one = "(one download)"
        lines += _bars("Time until the whole site is updated", times | {one: self.limit_s}, "{:.1f} s")
        lines += _bars("Times that each byte crossed the WAN", crossed | {one: 1.0}, "{:.2f} x")
        if any(result.system == "pull-through" and result.wan_ratio > _LEAKY for result in results):
            lines += ["", _LEAK]
        return "\n".join([*lines, *self._notes()])

    def _by_system(self) -> list[list[tuple[Floor, SystemResult]]]:
        count = len(self.rounds[0].results) if self.rounds else 0
        return [[(one.floor, one.results[index]) for one in self.rounds] for index in range(count)]

    def _system_document(self, runs: Sequence[tuple[Floor, SystemResult]]) -> dict[str, object]:
        results = [result for _, result in runs]
        good = [(floor, result) for floor, result in runs if result.verified]
        document = _result_document(_typical(results))
        document["verified"] = len(good) == len(runs)
        document["cpu_bound"] = any(result.load is not None and result.load.cpu_bound for result in results)
        document["limit_ratio"] = _median(result.site_s / floor.seconds for floor, result in good)
        document["spread"] = {
            "site_s": spread(result.site_s for _, result in good),
            "limit_ratio": spread(result.site_s / floor.seconds for floor, result in good),
            "wan_ratio": spread(result.wan_ratio for _, result in good),
            "last_wait_ratio": spread(result.node_s[-1] / floor.seconds for floor, result in good),
            "speed_up": spread(self._speed_ups(results[0].system)),
        } | self._costs([result for _, result in good])
        document["runs"] = [
            _result_document(result) | {"limit_s": floor.seconds} | _run_details(result)
            for floor, result in runs
        ]
        return document

    def _costs(self, results: Sequence[SystemResult]) -> dict[str, dict[str, float] | None]:
        megabytes = self.image_bytes / 1e6
        cpu = [r.cpu_s_per_node for r in results if r.cpu_s_per_node is not None]
        late = [r.late for r in results if r.late is not None]
        lan_s = self.image_bytes * 8 / self.lan_bit_s
        return {
            "cpu_ms_per_mb": spread(seconds * 1000 / megabytes for seconds in cpu),
            "rss_mib_per_node": spread(r.rss_mib_per_node for r in results if r.rss_mib_per_node is not None),
            "seeder_rss_mib": spread(r.seeder_rss_mib for r in results if r.seeder_rss_mib is not None),
            "late_wan_blob_bytes": spread(
                one.wan_blob_bytes for one in late if one.wan_blob_bytes is not None
            ),
            "late_lan_ratio": spread(max(one.node_s) / lan_s for one in late),
        }

    def _speed_ups(self, system: str) -> list[float]:
        """Against "direct" of the same round, where both went well."""
        found = []
        for one in self.rounds:
            times = {result.system: result.site_s for result in one.results if result.verified}
            if "direct" in times and times.get(system):
                found.append(times["direct"] / times[system])
        return found

    def _row(self, result: SystemResult, slowest: float) -> str:
        if not result.verified:
            return f"{result.system:14}{'failed':>14}"
        cpu = "" if result.cpu_s_per_node is None else f"{result.cpu_s_per_node:.1f} s"
        memory = "" if result.rss_mib_per_node is None else f"{result.rss_mib_per_node:.0f} MiB"
        runs = next(runs for runs in self._by_system() if runs[0][1].system == result.system)
        ratio = statistics.median(one.site_s / floor.seconds for floor, one in runs if one.verified)
        return (
            f"{result.system:14}{result.site_s:>12.1f} s{ratio:>9.3f}{readable_bytes(result.wan_bytes):>15}"
            f"{result.wan_ratio:>18.2f} x{slowest / result.site_s:>9.1f} x{cpu:>11}{memory:>13}  verified"
        )

    def _notes(self) -> list[str]:
        notes = []
        if len(self.rounds) > 1:
            notes += [_spread_note(runs) for runs in self._by_system() if any(r.verified for _, r in runs)]
        for result in self.results:
            if result.late is not None and result.verified:
                blobs = result.late.wan_blob_bytes
                said = "" if blobs is None else f", of content {readable_bytes(blobs)}"
                notes.append(
                    f"{result.system}: late nodes took at most {max(result.late.node_s):.2f} s; "
                    f"{readable_bytes(result.late.wan_bytes)} came over the WAN meanwhile{said}"
                )
        notes += _machine_notes([result for one in self.rounds for result in one.results])
        notes += [
            f"FAILED {result.system}: {error}"
            for one in self.rounds
            for result in one.results
            for error in result.errors
        ]
        return ["", *notes] if notes else []


def _typical(results: Sequence[SystemResult]) -> SystemResult:
    failed = [result for result in results if not result.verified]
    return failed[0] if failed else sorted(results, key=lambda result: result.site_s)[(len(results) - 1) // 2]


def _result_document(result: SystemResult) -> dict[str, object]:
    return {
        "system": result.system,
        "site_s": result.site_s,
        "node_s": result.node_s,
        "wan_bytes": result.wan_bytes,
        "wan_ratio": result.wan_ratio,
        "cpu_s_per_node": result.cpu_s_per_node,
        "rss_mib_per_node": result.rss_mib_per_node,
        "anon_mib_per_node": result.anon_mib_per_node,
        "containerd_cpu_s_per_node": result.containerd_cpu_s_per_node,
        "seeder_cpu_s": result.seeder_cpu_s,
        "seeder_rss_mib": result.seeder_rss_mib,
        "verified": result.verified,
    }


def _run_details(result: SystemResult) -> dict[str, object]:
    details: dict[str, object] = {"starts": result.starts, "errors": result.errors}
    if result.load is not None:
        details["load"] = result.load.document()
    if result.curve is not None:
        details["curve"] = {"seconds": result.curve.seconds, "held_bytes": result.curve.held}
    if result.late is not None:
        details["late"] = {
            "node_s": result.late.node_s,
            "wan_bytes": result.late.wan_bytes,
            "wan_blob_bytes": result.late.wan_blob_bytes,
        }
    return details


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


def _spread_note(runs: Sequence[tuple[Floor, SystemResult]]) -> str:
    good = [(floor, result) for floor, result in runs if result.verified]
    ratios = [result.site_s / floor.seconds for floor, result in good]
    crossed = [result.wan_ratio for _, result in good]
    return (
        f"{runs[0][1].system}: over {len(good)} runs / limit {min(ratios):.3f} to {max(ratios):.3f}, "
        f"each byte crossed {min(crossed):.3f} to {max(crossed):.3f} times"
    )


def _machine_notes(results: Sequence[SystemResult]) -> list[str]:
    notes = []
    bound = [result for result in results if result.load is not None and result.load.cpu_bound]
    for system in dict.fromkeys(result.system for result in bound):
        share = max(result.load.saturated for result in bound if result.system == system and result.load)
        notes.append(
            f"CPU-BOUND {system}: for {share:.0%} of the run this machine had no CPU to spare (judged from "
            f"{CPU_BOUND:.0%} on): its time is the machine's, not the network's; lower --wan or --nodes"
        )
    if any(result.load is not None and result.load.noisy for result in results):
        share = max(result.load.background for result in results if result.load is not None)
        notes.append(f"NOT QUIET: {share:.0%} of this machine was in use before a clock started")
    return notes


def _bars(title: str, values: dict[str, float], shape: str) -> list[str]:
    largest = max(values.values())
    lines = ["", title]
    for name, value in values.items():
        bar = "█" * max(1, round(_BAR * value / largest))
        lines.append(f"  {name:14} {bar} {shape.format(value)}")
    return lines
