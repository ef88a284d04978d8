"""Errors in the registry API's own words, in statuses that send a client on to its next host."""

from __future__ import annotations

import json

import pytest

from p2pd.model import errors
from p2pd.wire.registry_errors import ApiError, error_answer


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.NotFound("gone"), 404, "BLOB_UNKNOWN"),
        (errors.Denied("no"), 403, "DENIED"),
        (errors.RateLimited("slow down"), 503, "TOOMANYREQUESTS"),
        (errors.Unavailable("down"), 503, "UNAVAILABLE"),
        (errors.PeerProtocolError("lied"), 503, "UNAVAILABLE"),
        (errors.StoreFull("full"), 503, "UNAVAILABLE"),
        (errors.WrongContent("wrong"), 502, "DIGEST_INVALID"),
        (errors.InvalidReference("bad"), 400, "NAME_INVALID"),
        (ApiError(404, "NAME_UNKNOWN", "not mirrored"), 404, "NAME_UNKNOWN"),
    ],
)
def test_status_and_code(error: errors.P2pdError, status: int, code: str) -> None:
    answer = error_answer(error, "BLOB_UNKNOWN")
    assert answer.status == status
    assert json.loads(answer.body) == {"errors": [{"code": code, "message": str(error), "detail": {}}]}


def test_no_error_has_a_status_that_hurts_clients() -> None:
    def classes(root: type[errors.P2pdError]) -> list[type[errors.P2pdError]]:
        return [root, *(found for child in root.__subclasses__() for found in classes(child))]

    for kind in classes(errors.P2pdError):
        if kind is not ApiError and kind.__module__ == errors.__name__:
            answer = error_answer(kind("reason"), "MANIFEST_UNKNOWN")
            assert answer.status in {400, 403, 404, 502, 503}
            assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("told", "sent"),
    [(None, "10"), (0.2, "1"), (30.0, "30"), (-1, "10"), (float("nan"), "10"), (1e12, "3600")],
)
def test_retry_after(told: float | None, sent: str) -> None:
    answer = error_answer(errors.RateLimited("slow down", told), "NAME_UNKNOWN")
    assert answer.headers == {"Retry-After": sent, "P2pd-Fault": "origin"}


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (errors.Unavailable("down"), "origin"),
        (errors.PeerProtocolError("lied"), "peer"),
        (errors.StoreFull("full"), "ours"),
        (errors.InvalidReference("bad"), "user"),
        (ApiError(405, "UNSUPPORTED", "read-only"), "user"),
    ],
)
def test_every_error_tells_whose_fault_it_is(error: errors.P2pdError, fault: str) -> None:
    assert error_answer(error, "BLOB_UNKNOWN").headers["P2pd-Fault"] == fault


def test_a_message_is_bounded() -> None:
    answer = error_answer(errors.Unavailable("x" * 100_000), "NAME_UNKNOWN")
    assert len(answer.body) < 1000
