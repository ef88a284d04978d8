"""What is promised of a soak, and whether it was kept. Pure: all times are seconds of one clock.

**A living source** of a pull, at a moment, is one of these:
- the origin: the node's cable is in and the WAN is up, so that containerd itself can go there;
- the node's own p2pd, neither dead nor hung, where every blob of the image is held by it, or by a node
  whose p2pd is alive too, both cables being in: all this for `REJOINED_S` already, in which nodes find
  each other again. A blob counts as held by a node that had it when the pull began and when it ended.

A failed pull is excused only when there was a moment, between its begin and its end, without any. The
seeder is not in this: where it can be reached, so can the origin.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

__all__ = [
    "REJOINED_S",
    "Outage",
    "Pull",
    "Series",
    "is_excused",
    "judge_pulls",
    "judge_rest",
    "judge_series",
]

REJOINED_S = 10.0

WAN = "wan"

LEAST_S = 240.0
"""A series that is shorter is not judged: a daemon's memory takes a while to find its level."""

_MIB = 1 << 20
_RSS_SLACK = (1.10, 10 * _MIB)
_FD_SLACK = 24
"""Up to 20 connections over the WAN are kept for the next request (p2pd.io.http), and closed only by that."""


@dataclass(frozen=True, slots=True)
class Outage:
    """`place` is "wan", "n3 port" or "n3 daemon"; `end` is infinite while it lasts."""

    place: str
    begin: float
    end: float = inf


@dataclass(frozen=True, slots=True)
class Pull:
    """One image by one node. `holders`: of each of its blobs, the nodes that held it all the time.

    `wrong`: blobs that are absent from containerd, or not their digest, after it said that all is well.
    """

    node: int
    image: int
    begin: float
    end: float
    code: int
    message: str = ""
    wrong: int = 0
    holders: Sequence[frozenset[int]] = ()


@dataclass(slots=True)
class Series:
    """One life of one daemon: (when, resident bytes, open descriptors)."""

    name: str
    samples: list[tuple[float, int, int]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.samples[-1][0] - self.samples[0][0] if self.samples else 0.0

    def medians(self) -> tuple[float, float]:
        """Resident bytes in the second quarter, and in the last; needs four samples."""
        values, quarter = [sample[1] for sample in self.samples], len(self.samples) // 4
        return statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])


def is_excused(pull: Pull, outages: Iterable[Outage]) -> bool:
    """Whether a pull had, for a moment, no living source."""
    known = list(outages)
    return any(not _has_source(pull, moment, known) for moment in _moments(pull, known))


def judge_pulls(pulls: Iterable[Pull], outages: Sequence[Outage]) -> list[str]:
    """A line for each pull that breaks a promise."""
    found = []
    for pull in pulls:
        name = f"n{pull.node}, image {pull.image}, {pull.begin:.1f} to {pull.end:.1f} s"
        if pull.wrong:
            found.append(f"{name}: {pull.wrong} blobs are absent or wrong")
        if pull.code != 0 and not is_excused(pull, outages):
            found.append(f"{name}: failed beside a living source ({pull.code}): {pull.message[-200:]}")
    return found


def judge_series(series: Iterable[Series]) -> list[str]:
    """A line for each daemon that grew."""
    found = []
    for one in series:
        if one.seconds < LEAST_S:
            continue
        rss, last_rss = one.medians()
        if last_rss > rss * _RSS_SLACK[0] + _RSS_SLACK[1]:
            found.append(f"{one.name}: memory grew from {rss / _MIB:.1f} to {last_rss / _MIB:.1f} MiB")
    return found


def judge_rest(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """A line for each daemon that has more open, with nothing to do, than any had before the first pull.

    While it works the number follows what is loaded and connected; at rest only a leak is left of it.
    """
    usual = max(before.values(), default=0)
    return [
        f"{name}: {count} open descriptors at rest, {usual} before the first pull"
        for name, count in after.items()
        if count > usual + _FD_SLACK
    ]


def _moments(pull: Pull, outages: Sequence[Outage]) -> Iterator[float]:
    """One between each two changes, and thus one for each state that the site was in."""
    changes = {pull.begin, pull.end}
    for outage in outages:
        changes |= {outage.begin, outage.end, outage.end + REJOINED_S}
    times = sorted(time for time in changes if pull.begin <= time <= pull.end)
    if len(times) == 1:
        yield times[0]
    for earlier, later in itertools.pairwise(times):
        yield (earlier + later) / 2


def _has_source(pull: Pull, moment: float, outages: Sequence[Outage]) -> bool:
    def is_up(place: str, settled: float = 0.0) -> bool:
        return not any(out.place == place and out.begin <= moment < out.end + settled for out in outages)

    def is_member(node: int) -> bool:
        return is_up(f"n{node} daemon", REJOINED_S) and is_up(f"n{node} port", REJOINED_S)

    if is_up(WAN) and is_up(f"n{pull.node} port"):
        return True
    if not is_up(f"n{pull.node} daemon"):
        return False
    living = {pull.node}
    if is_member(pull.node):
        living |= {node for holders in pull.holders for node in holders if is_member(node)}
    return bool(pull.holders) and all(holders & living for holders in pull.holders)
