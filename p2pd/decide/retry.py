"""Whether and when a failed request over the WAN is tried again."""

from __future__ import annotations

from dataclasses import dataclass

from p2pd.model.errors import OriginFault, RateLimited, Unavailable

__all__ = ["RetryPolicy", "retry_delay"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`failures` in a row without a byte of progress end it, or `patience` seconds without one.

    Delays double from `first` to `longest` seconds. A server that asks for more than
    `longest_retry_after` is not waited for.
    """

    failures: int = 6
    first: float = 0.25
    longest: float = 10.0
    patience: float = 60.0
    longest_retry_after: float = 30.0


def retry_delay(
    policy: RetryPolicy, error: OriginFault, failures: int, since_progress: float, jitter: float
) -> float | None:
    """Seconds to wait before the next try, None to give up.

    `failures` >= 1 counts this one and those before it since the last progress; `since_progress` is
    in seconds; `jitter` in [0, 1) spreads nodes that failed at the same moment.
    """
    if not isinstance(error, Unavailable | RateLimited) or failures >= policy.failures:
        return None
    doublings = min(failures - 1, 30)
    delay = min(policy.first * 2.0**doublings, policy.longest) * (0.5 + jitter / 2)
    if isinstance(error, RateLimited) and error.retry_after is not None:
        if error.retry_after > policy.longest_retry_after:
            return None
        # A little later than told, never earlier.
        delay = error.retry_after + delay / 2
    return delay if since_progress + delay < policy.patience else None
