"""Discovery and liveness between real nodes: each in its own network namespace, on one bridge."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
IDS = ["a" * 16, "b" * 16, "c" * 16]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


class Node:
    """One namespace with a process in it, and what that process last said."""

    def __init__(self, site: str, number: int) -> None:
        self.node_id = IDS[number]
        self.namespace = f"{site}n{number}"
        self.port = f"{site}p{number}"
        self._bridge = f"{site}b"
        ip("netns", "add", self.namespace)
        ip("link", "add", self.port, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("link", "set", self.port, "master", self._bridge, "up")
        self._ip("link", "set", "lo", "up")
        self._ip("link", "set", "eth0", "up")
        self.set_address(f"10.77.0.{number + 1}")
        self._process: subprocess.Popen[str] | None = None
        self.said: list[dict[str, Any]] = []
        self.changed = threading.Condition()

    def set_address(self, address: str) -> None:
        self._ip("address", "flush", "dev", "eth0")
        self._ip("address", "add", f"{address}/24", "dev", "eth0")
        self._ip("route", "replace", "default", "dev", "eth0")

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.support.discovery_node", self.node_id]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def pull_cable(self) -> None:
        ip("link", "set", self.port, "down")

    def plug_cable(self) -> None:
        ip("link", "set", self.port, "up")

    def stop(self, number: signal.Signals) -> float:
        """Signal the process and wait for its end; seconds that took."""
        assert self._process is not None
        started = time.monotonic()
        self._process.send_signal(number)
        self._process.wait(10)
        self._process = None
        return time.monotonic() - started

    def wait_live(self, expected: dict[str, str], within: float) -> float:
        """Seconds, from the call, until the node said that exactly these peers are live."""
        started = time.monotonic()
        with self.changed:
            done = self.changed.wait_for(lambda: self.said and self.said[-1]["live"] == expected, within)
        assert done, f"{self.node_id[:1]} has {self.said[-1:]} after {within} s, not {expected}"
        return time.monotonic() - started

    def close(self) -> None:
        if self._process is not None:
            self.stop(signal.SIGKILL)
        ip("netns", "delete", self.namespace)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                with self.changed:
                    self.said.append(json.loads(line))
                    self.changed.notify_all()

    def _ip(self, *arguments: str) -> None:
        ip("-n", self.namespace, *arguments)


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2 to make network namespaces")
    site = f"pd{os.getpid() % 100_000}"
    undo: list[Callable[[], None]] = []
    try:
        ip("link", "add", f"{site}b", "type", "bridge")
        undo.append(lambda: ip("link", "delete", f"{site}b"))
        ip("link", "set", f"{site}b", "up")
        made = []
        for number in range(3):
            node = Node(site, number)
            undo.append(node.close)
            made.append(node)
        yield made
    finally:
        for step in reversed(undo):
            step()


def others(nodes: list[Node], but: Node) -> dict[str, str]:
    return {n.node_id: f"10.77.0.{i + 1}" for i, n in enumerate(nodes) if n is not but}


def test_nodes_find_each_other_lose_each_other_and_come_back(nodes: list[Node]) -> None:
    a, b, c = nodes
    for node in nodes:
        node.start()
    for node in nodes:
        node.wait_live(others(nodes, node), 20)
    # From when the last of them was ready: starting three interpreters is not what is measured.
    assert max(n.said[-1]["at"] for n in nodes) - max(n.said[0]["at"] for n in nodes) < 5

    # A power cut, as the others see it.
    c.pull_cable()
    a.wait_live({b.node_id: "10.77.0.2"}, 4)
    b.wait_live({a.node_id: "10.77.0.1"}, 1)
    c.plug_cable()
    a.wait_live(others(nodes, a), 20)

    # Its process dies, and another starts.
    c.stop(signal.SIGKILL)
    a.wait_live({b.node_id: "10.77.0.2"}, 1)
    c.start()
    for node in nodes:
        node.wait_live(others(nodes, node), 10)

    # It gets another address.
    c.set_address("10.77.0.33")
    a.wait_live({b.node_id: "10.77.0.2", c.node_id: "10.77.0.33"}, 10)
    c.wait_live(others(nodes, c), 10)

    assert c.stop(signal.SIGTERM) < 4
    a.wait_live({b.node_id: "10.77.0.2"}, 1)
