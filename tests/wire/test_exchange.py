"""Refusals as errors and back, and replies that do not fit."""

from __future__ import annotations

import pytest

from p2pd.model.errors import (
    Denied,
    NotFound,
    P2pdError,
    PeerFault,
    PeerProtocolError,
    PeerUnavailable,
    RateLimited,
    StoreFull,
    Unavailable,
    WrongContent,
)
from p2pd.model.messages import (
    Fetched,
    Join,
    Joined,
    Ping,
    Pong,
    Progress,
    Query,
    QueryReply,
    Read,
    ReadReply,
    Refused,
    Reply,
    Request,
    Want,
    WantReply,
)
from p2pd.model.reference import Digest
from p2pd.wire.exchange import REASON_LIMIT, check_reply, error_of, one_line, refusal_of

ONE, TWO = Digest("11" * 32), Digest("22" * 32)
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("error", "kind", "raised"),
    [
        (NotFound("x"), "not-found", NotFound),
        (Denied("x"), "denied", Denied),
        (Unavailable("x"), "unavailable", Unavailable),
        (RateLimited("x", 3), "unavailable", Unavailable),
        (PeerUnavailable("x"), "unavailable", Unavailable),
        (WrongContent("x"), "fault", PeerFault),
        (StoreFull("x"), "fault", PeerFault),
    ],
)
def test_what_an_error_becomes_at_the_asker(error: P2pdError, kind: str, raised: type[P2pdError]) -> None:
    refused = refusal_of(error)
    assert refused.kind == kind
    told = error_of("ab" * 16, refused)
    assert type(told) is raised
    assert "abababababab" in str(told)
    assert "x" in str(told)


def test_kinds_that_no_error_of_the_handler_makes() -> None:
    assert type(error_of("ab", Refused("busy", ""))) is PeerUnavailable
    assert type(error_of("ab", Refused("unsupported", ""))) is PeerFault
    assert type(error_of("ab", Refused("of the future", ""))) is PeerFault


def test_one_line() -> None:
    assert one_line("a\r\n\x1b[1m\u2028b") == "a   [1m b"
    assert one_line("y" * REASON_LIMIT) == "y" * REASON_LIMIT
    assert one_line("y" * 10_000) == "y" * (REASON_LIMIT - 1) + "…"


WANT = Want(Progress(ONE, 5 * MIB, bytes(3), bytes(3), "none"))


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (Ping(), Pong()),
        (Query(ONE), QueryReply(None, None)),
        (Read(ONE, 0, 5), ReadReply(b"12345")),
        (Read(ONE, 0, 5), ReadReply(b"")),
        (WANT, WantReply(True, None)),
        (WANT, WantReply(False, WANT.progress)),
        (Join(ONE, 5 * MIB, 0), Joined(True, bytes(20 * 20))),
        (Join(ONE, 5 * MIB, 0), Joined(False, None)),
    ],
)
def test_a_reply_that_fits(request_: Request, reply: Reply) -> None:
    check_reply(request_, reply)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (Ping(), Fetched(1)),
        (Query(ONE), Pong()),
        (Read(ONE, 0, 5), ReadReply(b"123456")),
        (WANT, WantReply(False, Progress(TWO, 5 * MIB, bytes(3), bytes(3), "none"))),
        (WANT, WantReply(False, Progress(ONE, 6 * MIB, bytes(3), bytes(3), "none"))),
        (Join(ONE, 5 * MIB, 0), Joined(True, bytes(20 * 19))),
    ],
)
def test_a_reply_that_does_not_fit(request_: Request, reply: Reply) -> None:
    with pytest.raises(PeerProtocolError):
        check_reply(request_, reply)
