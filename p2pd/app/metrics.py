"""Prometheus metrics of a node. Names follow the Prometheus naming conventions."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from p2pd.model.admin import Traffic

__all__ = ["Metrics"]


class Metrics:
    """One registry a daemon, so that several can live in one process in tests."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.wan_bytes = self._counter("wan_bytes", "Content bytes fetched over the WAN", "source")
        self.lan_bytes = self._counter("lan_bytes", "Content bytes received from LAN peers")
        self.served_bytes = self._counter("served_bytes", "Content bytes given to clients")
        self.wan_failures = self._counter(
            "wan_failures", "Requests over the WAN that failed", "source", "registry"
        )
        self.seeder_up = Gauge("p2pd_seeder_up", "Whether", ["seeder"], registry=self.registry)
        self.upstream_up = Gauge(
            "p2pd_upstream_up", "Whether a registry answers", ["source", "registry"], registry=self.registry
        )
        self.stale_tags = self._counter("stale_tags", "Tags answered from memory, unconfirmed")
        self.transfers = self._counter("transfers", "Finished transfers", "result")
        self.evicted_bytes = self._counter("evicted_bytes", "Bytes the store let go", "reason")
        self.peers = Gauge("p2pd_peers", "Live peers", registry=self.registry)
        self.blobs_held = Gauge("p2pd_blobs_held", "Whole, verified blobs", registry=self.registry)

    def note_evicted(self, reason: str, size: int) -> None:
        self.evicted_bytes.labels(reason).inc(size)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"p2pd_{name}", text, labels, registry=self.registry)

    def traffic(self) -> Traffic:
        """Content bytes since the start, by where they came from and where they went."""
        wan = {
            sample.labels["source"]: int(sample.value)
            for family in self.wan_bytes.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        }
        origin = wan.pop("origin", 0)
        return Traffic(_count(self.served_bytes), _count(self.lan_bytes), sum(wan.values()), origin)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


def _count(counter: Counter) -> int:
    [value] = [
        sample.value
        for family in counter.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    ]
    return int(value)
