"""Errors as the registry API tells them: a status, and `{"errors": [{code, message, detail}]}`.

Source: OCI distribution-spec 1.1, "Error Codes". The statuses are chosen so that a runtime goes on
to its next host at once: never 401 (CRI would then send the pod's pull secret), never 408 or 429
(six immediate tries), never a redirect.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from p2pd.model.errors import (
    Denied,
    InvalidReference,
    NotFound,
    P2pdError,
    RateLimited,
    UserMistake,
    WrongContent,
    whose,
)

__all__ = ["FAULT_HEADER", "WRONG_CONTENT_CODES", "ApiError", "error_answer"]

FAULT_HEADER = "P2pd-Fault"
"""Response header of every error: whose fault it is, as `p2pd.model.errors.whose` says. A node learns by it
that its seeder is well although an upstream of that one is not."""

WRONG_CONTENT_CODES = frozenset({"MANIFEST_INVALID", "DIGEST_INVALID"})

_RETRY_AFTER = 10
_MAX_RETRY_AFTER = 3600
_SHOWN = 500


class ApiError(UserMistake):
    """An answer that is an error. `str()` is its message; `headers` are extra ones."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        error = {"code": self.code, "message": str(self)[:_SHOWN], "detail": {}}
        return json.dumps({"errors": [error]}).encode()


def error_answer(error: P2pdError, unknown: str) -> ApiError:
    """The answer that tells `error`; `unknown` is the code of what was asked for, e.g. BLOB_UNKNOWN."""
    answer = error if isinstance(error, ApiError) else _answer(error, unknown)
    answer.headers[FAULT_HEADER] = whose(error)
    return answer


def _answer(error: P2pdError, unknown: str) -> ApiError:
    message = str(error) or type(error).__name__
    if isinstance(error, NotFound):
        return ApiError(404, unknown, message)
    if isinstance(error, Denied):
        return ApiError(403, "DENIED", message)
    if isinstance(error, RateLimited):
        return ApiError(503, "TOOMANYREQUESTS", message, {"Retry-After": _seconds(error.retry_after)})
    if isinstance(error, InvalidReference):
        return ApiError(400, "NAME_INVALID", message)
    if isinstance(error, WrongContent):
        return ApiError(
            502, "MANIFEST_INVALID" if unknown == "MANIFEST_UNKNOWN" else "DIGEST_INVALID", message
        )
    return ApiError(503, "UNAVAILABLE", message)


def _seconds(retry_after: float | None) -> str:
    if retry_after is None or not math.isfinite(retry_after) or retry_after < 0:
        return str(_RETRY_AFTER)
    return str(min(math.ceil(retry_after), _MAX_RETRY_AFTER))
