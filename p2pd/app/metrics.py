"""Prometheus metrics: what node and seeder have in common, and the node's own.

docs/metrics.md says what they mean to an operator; a test holds it to what is registered here.
Names, units and suffixes follow the Prometheus naming conventions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from p2pd import __version__
from p2pd.model.admin import Traffic
from p2pd.model.errors import NotFound, P2pdError, whose
from p2pd.model.reference import Digest

__all__ = ["DaemonMetrics", "Metrics", "StoreFigures"]

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use here

_FIRST_BYTE = (0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TRANSFER = (0.25, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1800.0)
_LAG = (0.005, 0.02, 0.1, 0.25, 1.0, 5.0)


class StoreFigures(Protocol):
    """What is shown of the store."""

    @property
    def lost(self) -> int: ...

    def held(self) -> Iterator[tuple[Digest, int]]: ...


class DaemonMetrics:
    """One registry a daemon, so that several can live in one process in tests."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, prefix: str) -> None:
        self.registry = CollectorRegistry()
        self._prefix = prefix
        ProcessCollector(registry=self.registry)
        self.gauge("build_info", "Version of this daemon", "version").labels(__version__).set(1)
        self.requests = self.counter("requests", "Answers of the registry API", "kind", "code")
        self.first_byte = self.histogram(
            "request_first_byte_seconds", "From a request to the first byte of its body", _FIRST_BYTE, "kind"
        )
        self.errors = self.counter(
            "errors", "Errors, by where they were met and whose fault", "where", "fault"
        )
        self.served_bytes = self.counter("served_bytes", "Content bytes given to clients")
        self.stale_tags = self.counter("stale_tags", "Tags answered from memory, unconfirmed")
        self.stale_listings = self.counter(
            "stale_listings", "Lists of tags or referrers answered from memory, unconfirmed"
        )
        self.transfers = self.counter("transfers", "Blob transfers that ended", "result")
        self.transfers_running = self.gauge("transfers_running", "Blob transfers under way")
        self.transfer_seconds = self.histogram(
            "transfer_seconds", "Duration of blob transfers that ended well", _TRANSFER
        )
        self.hash_failures = self.counter(
            "hash_failures", "Bytes that were not what their hash says", "where"
        )
        self.store_blobs = self.gauge("store_blobs", "Whole, verified blobs")
        self.store_bytes = self.gauge("store_bytes", "Bytes of whole, verified blobs")
        self.store_evictions = self.counter("store_evictions", "Files the store let go", "reason")
        self.store_evicted_bytes = self.counter("store_evicted_bytes", "Bytes the store let go", "reason")
        self.store_free_bytes = self.gauge("store_free_bytes", "Free bytes of the store's file system")
        self.loop_lag = self.histogram(
            "event_loop_lag_seconds", "How late the event loop runs what is due", _LAG
        )
        self._lost_seen = 0
        self._zero(self.errors, [("request", fault) for fault in ("ours", "peer", "origin", "user")])
        self._zero(self.transfers, [("ok",), ("failed",)])
        self._zero(self.hash_failures, [("disk",), ("blob",)])
        reasons = ("unused", "twin", "spare", "shared", "last", "tiny", "abandoned")
        self._zero(self.store_evictions, [(reason,) for reason in reasons])
        self._zero(self.store_evicted_bytes, [(reason,) for reason in reasons])

    def answered(self, kind: str, code: int, first_byte: float | None, error: P2pdError | None) -> None:
        """See `RequestObserver.answered`."""
        self.requests.labels(kind, str(code)).inc()
        if first_byte is not None and code < 400:
            self.first_byte.labels(kind).observe(first_byte)
        if error is not None:
            self.failed("request", error)

    def failed(self, where: str, error: P2pdError) -> None:
        """Count an error; "there is no such thing" is an answer and none."""
        if not isinstance(error, NotFound):
            self.errors.labels(where, whose(error)).inc()

    def note_evicted(self, reason: str, size: int) -> None:
        """The store let go of something."""
        self.store_evictions.labels(reason).inc()
        self.store_evicted_bytes.labels(reason).inc(size)

    def show_store(self, store: StoreFigures, free_bytes: int) -> None:
        """Bring what is known of the store up to date."""
        sizes = [size for _, size in store.held()]
        self.store_blobs.set(len(sizes))
        self.store_bytes.set(sum(sizes))
        self.store_free_bytes.set(free_bytes)
        self.hash_failures.labels("disk").inc(store.lost - self._lost_seen)
        self._lost_seen = store.lost

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{self._prefix}_{name}", text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{self._prefix}_{name}", text, labels, registry=self.registry)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{self._prefix}_{name}", text, labels, buckets=buckets, registry=self.registry)

    def _zero(self, counter: Counter, labels: Iterable[tuple[str, ...]]) -> None:
        """Show a counter from the start: a rate cannot see the first step of a series that was not there."""
        for values in labels:
            counter.labels(*values)


class Metrics(DaemonMetrics):
    """A node's."""

    def __init__(self) -> None:
        super().__init__("p2pd")
        self.wan_bytes = self.counter("wan_bytes", "Content bytes fetched over the WAN", "source")
        self.wan_duplicate_bytes = self.counter(
            "wan_duplicate_bytes", "Content bytes fetched over the WAN that the site had by then"
        )
        self.wan_spared_bytes = self.counter(
            "wan_spared_bytes", "Content bytes this node had without fetching them over the WAN"
        )
        self.wan_failures = self.counter(
            "wan_failures", "Requests over the WAN that failed", "source", "registry"
        )
        self.takeovers = self.counter("takeovers", "Stripes fetched in place of their owner")
        self.source_up = self.gauge("source_up", "Whether a seeder answers", "source")
        self.upstream_up = self.gauge("upstream_up", "Whether a registry answers", "source", "registry")
        self.lan_bytes = self.counter("lan_bytes", "Content bytes received from LAN peers")
        self.peers = self.gauge("peers", "Live peers")
        self._zero(self.errors, [("transfer", "ours"), ("transfer", "origin"), ("lan", "peer")])
        self._zero(self.hash_failures, [("piece",)])

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


def _count(counter: Counter) -> int:
    [value] = [
        sample.value
        for family in counter.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    ]
    return int(value)
