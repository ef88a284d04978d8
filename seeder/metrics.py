"""Prometheus metrics of the seeder: those of every daemon, and its own."""

from __future__ import annotations

from p2pd.app.metrics import DaemonMetrics

__all__ = ["SeederMetrics"]


class SeederMetrics(DaemonMetrics):
    def __init__(self) -> None:
        super().__init__("p2pd_seeder")
        self.origin_bytes = self.counter(
            "origin_bytes", "Content bytes fetched from origin registries", "registry"
        )
        self.origin_failures = self.counter(
            "origin_failures", "Transfers and tag questions that an origin registry failed", "registry"
        )
