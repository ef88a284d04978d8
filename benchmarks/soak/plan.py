"""What happens in a soak, and when: from a seed alone, in virtual time. Pure.

Rules that hold in every plan: a place (a node, the WAN, the seeder) has one fault at a time and rest after
it; nothing is broken at the end; the first half of the nodes is never ended, so that their memory and
descriptors can be watched for all of the time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Event", "Kind", "make_plan"]

_PULL_EVERY_S = 8.0
_FAULT_EVERY_S = 6.0
_CALM_S = 5.0
"""Time at the beginning in which nothing breaks."""

_REST_S = 8.0
"""Between two faults of one place: it comes back, and is one of the site again."""

_WHOLE_SITE = 0.2
"""Share of the pulls that every node makes at one instant, as after a rollout."""


class Kind(StrEnum):
    """PULL is of `image`, by all of `nodes` at once. The others are faults of one place."""

    PULL = "pull"
    KILL = "kill"
    RESTART = "restart"
    HANG = "hang"
    UNPLUG = "unplug"
    COLLECT = "collect"
    CUT_WAN = "cut-wan"
    KILL_SEEDER = "kill-seeder"


_ENDS_A_NODE = frozenset({Kind.KILL, Kind.RESTART})
_OF_A_NODE = _ENDS_A_NODE | {Kind.HANG, Kind.UNPLUG, Kind.COLLECT}

_FAULTS: dict[Kind, tuple[int, float, float]] = {
    Kind.KILL: (3, 0.0, 15.0),
    Kind.RESTART: (2, 0.0, 5.0),
    Kind.HANG: (2, 2.0, 20.0),
    Kind.UNPLUG: (3, 1.0, 20.0),
    Kind.COLLECT: (2, 0.0, 0.0),
    Kind.CUT_WAN: (2, 2.0, 20.0),
    Kind.KILL_SEEDER: (2, 0.0, 15.0),
}
"""How often, in relation to each other, and for how many seconds, at least and at most."""


@dataclass(frozen=True, slots=True)
class Event:
    """At `at` seconds; a fault is healed `seconds` later. `image` is the number of the one that is pulled."""

    at: float
    kind: Kind
    nodes: tuple[int, ...] = ()
    image: int = -1
    seconds: float = 0.0

    @property
    def place(self) -> str:
        """What a fault breaks."""
        if self.kind in (Kind.CUT_WAN, Kind.KILL_SEEDER):
            return self.kind.value
        return f"n{self.nodes[0]}"

    def __str__(self) -> str:
        words = [self.kind.value, *(f"n{node}" for node in self.nodes)]
        if self.kind is Kind.PULL:
            words.append(f"image {self.image}")
        elif self.seconds:
            words.append(f"for {self.seconds:.1f} s")
        return f"{self.at:7.1f} s  {' '.join(words)}"


def make_plan(seed: int, seconds: float, nodes: int, images: int) -> list[Event]:
    """The events of `seconds`, in order. Each stream has a random source of its own: more nodes or images
    change who pulls what, not when.
    """
    return sorted(
        [*_pulls(seed, seconds, nodes, images), *_faults(seed, seconds, nodes)], key=lambda event: event.at
    )


def _pulls(seed: int, seconds: float, nodes: int, images: int) -> list[Event]:
    choose, when = random.Random(f"{seed} pulls"), random.Random(f"{seed} pull times")
    events, now = [], 0.0
    while now < seconds:
        count = nodes if choose.random() < _WHOLE_SITE else choose.randint(1, nodes)
        who = tuple(sorted(choose.sample(range(nodes), count)))
        events.append(Event(now, Kind.PULL, who, choose.randrange(images)))
        now += when.expovariate(1 / _PULL_EVERY_S)
    return events


def _faults(seed: int, seconds: float, nodes: int) -> list[Event]:
    choose, when = random.Random(f"{seed} faults"), random.Random(f"{seed} fault times")
    weights = [weight for weight, _, _ in _FAULTS.values()]
    free_at: dict[str, float] = {}
    events, now = [], _CALM_S
    while (now := now + when.expovariate(1 / _FAULT_EVERY_S)) < seconds:
        kind = choose.choices(list(_FAULTS), weights)[0]
        _, least, most = _FAULTS[kind]
        event = Event(now, kind, _victim(choose, kind, nodes), seconds=choose.uniform(least, most))
        if free_at.get(event.place, 0.0) <= now and now + event.seconds < seconds:
            free_at[event.place] = now + event.seconds + _REST_S
            events.append(event)
    return events


def _victim(choose: random.Random, kind: Kind, nodes: int) -> tuple[int, ...]:
    if kind not in _OF_A_NODE:
        return ()
    choices: Sequence[int] = range(nodes // 2, nodes) if kind in _ENDS_A_NODE else range(nodes)
    return (choose.choice(choices),)
