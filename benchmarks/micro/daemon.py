"""One node's daemon under the stop watch."""

from __future__ import annotations

import time

from benchmarks.testbed import Node, Process, TestbedError
from benchmarks.testbed.process import Usage

__all__ = ["MIB", "process_of", "start_timed", "usage_of"]

MIB = 1 << 20


def start_timed(node: Node) -> float:
    """Start the node's p2pd: seconds from before its exec to its mirror's first answer, to 20 ms."""
    begun = time.monotonic()
    node.start_p2pd()
    node.wait_p2pd()
    return time.monotonic() - begun


def process_of(node: Node) -> Process:
    if node.p2pd is None:
        raise TestbedError(f"{node.name}: p2pd was not started")
    return node.p2pd


def usage_of(node: Node) -> Usage:
    """What the node's p2pd used so far. Raises TestbedError where it has died."""
    process = process_of(node)
    try:
        return process.usage()
    except ProcessLookupError as error:
        raise TestbedError(f"{error}: {process.last_words()}") from error
