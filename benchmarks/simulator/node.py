"""A simulated node, and what it fetches."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pd.decide.circle import Choice, Circle
from p2pd.decide.plan import FetchPlan, Way
from p2pd.decide.report import Report

__all__ = ["UPLOADS", "Flow", "Node"]

UPLOADS = 4
"""Pieces that a node gives at a time."""


@dataclass(slots=True, eq=False)
class Flow:
    """One range request. `left` counts the bytes to come."""

    node: Node
    stripe: int
    left: float
    rate: float = 0.0


@dataclass(slots=True, eq=False)
class Node:
    name: str
    plan: FetchPlan
    way: Way = Way.SEEDER
    alive: bool = True
    on_lan: bool = True
    cap: float = float("inf")
    have: int = 0
    receiving: int = 0
    uploads: int = 0
    flows: dict[int, Flow] = field(default_factory=dict)
    known: dict[Node, None] = field(default_factory=dict)
    circle: Circle | None = None
    choice: Choice = field(default_factory=lambda: Choice(frozenset()))
    report: Report | None = None
    report_to_mesh: Report | None = None
    """What it would tell if everybody told everybody."""
    sent: int = 0
    received: int = 0
    phase: float = 0.0
    will_meet: bool = False
    leads: bool = False
    done_at: float | None = None
    life: int = 0
    decides_at: float = float("inf")
    decided_at: float = float("inf")
    will_report: bool = False
    told_at: float = -1.0
    timer: int = 0
    given: int = 0
    uplink: float = 1.0
    """What share of a link's rate it gives; below 1 one piece at a time, and others are asked too."""

    @property
    def slots(self) -> int:
        return UPLOADS if self.uplink >= 1 else 1
