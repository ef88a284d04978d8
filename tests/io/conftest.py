from __future__ import annotations

import pytest
import trio

from benchmarks.testbed.registry import FaultRegistry


@pytest.fixture
async def registry(nursery: trio.Nursery) -> FaultRegistry:
    registry = FaultRegistry()
    await nursery.start(registry.run)
    return registry
