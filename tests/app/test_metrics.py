"""What is counted, and how errors are told apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from p2pd.app.metrics import Metrics
from p2pd.model import errors
from p2pd.model.reference import Digest


class Shelf:
    """What is shown of a store."""

    def __init__(self) -> None:
        self.lost = 0
        self.sizes = [5, 7]

    def held(self) -> Iterator[tuple[Digest, int]]:
        return ((Digest("0" * 64), size) for size in self.sizes)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"p2pd_{name}", labels)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (errors.StoreFull("x"), "ours"),
        (errors.PeerUnavailable("x"), "peer"),
        (errors.Unavailable("x"), "origin"),
        (errors.InvalidReference("x"), "user"),
    ],
)
def test_errors_by_whose_fault(error: errors.P2pdError, fault: str) -> None:
    metrics = Metrics()
    metrics.answered("blob", 503, 0.2, error)
    counted = {each: value(metrics, "errors_total", where="request", fault=each) for each in FAULTS}
    assert counted == {each: float(each == fault) for each in FAULTS}
    assert value(metrics, "requests_total", kind="blob", code="503") == 1
    assert value(metrics, "request_first_byte_seconds_count", kind="blob") is None


FAULTS = ("ours", "peer", "origin", "user")


def test_what_is_not_there_is_an_answer_and_no_error() -> None:
    metrics = Metrics()
    metrics.answered("manifest", 404, 0.1, errors.NotFound("x"))
    assert value(metrics, "requests_total", kind="manifest", code="404") == 1
    assert value(metrics, "errors_total", where="request", fault="origin") == 0


def test_a_client_that_left_has_no_first_byte() -> None:
    metrics = Metrics()
    metrics.answered("blob", 499, None, None)
    metrics.answered("blob", 200, 0.01, None)
    assert value(metrics, "request_first_byte_seconds_count", kind="blob") == 1


def test_the_store_as_it_stands() -> None:
    metrics, shelf = Metrics(), Shelf()
    metrics.show_store(shelf, 100)
    shelf.lost, shelf.sizes = 2, [5]
    for _ in range(2):
        metrics.show_store(shelf, 90)
    assert value(metrics, "store_blobs") == 1
    assert value(metrics, "store_bytes") == 5
    assert value(metrics, "store_free_bytes") == 90
    assert value(metrics, "hash_failures_total", where="disk") == 2
