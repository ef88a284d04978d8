"""Fixtures of the tests of the node's shells."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.support.memory_site import MemorySite, open_site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[MemorySite, None]:
    """A site that has no node yet, and whose pieces never come from peers."""
    async with open_site(tmp_path) as site:
        yield site
