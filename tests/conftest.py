"""What holds for every test: none fails for want of speed, and property tests repeat in CI."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.support import virtual_time

# A busy machine is slow, not wrong: no example has a deadline. Tests that need more examples say so.
settings.register_profile(
    "p2pd", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
# In CI a red run must be the change's fault: the same examples every time.
settings.register_profile("ci", settings.get_profile("p2pd"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "p2pd")


def pytest_configure() -> None:
    # A shell has its background jobs ignore interrupts, and so would the programs that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)  # after pytest-trio has marked its tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("virtual_time") is not None:
            item.add_marker(pytest.mark.trio(run=virtual_time.run), append=False)
