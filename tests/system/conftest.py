"""What system tests share: a testbed builder, skipped in clear words where none can be built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from benchmarks.testbed import SiteSpec, Testbed, missing_prerequisite

BuildSite = Callable[[SiteSpec], Testbed]


@pytest.fixture
def build_site() -> Iterator[BuildSite]:
    """Build testbeds that are gone when the test ends."""
    if (why := missing_prerequisite()) is not None:
        pytest.skip(f"no testbed: {why}")
    with ExitStack() as stack:
        yield lambda spec: stack.enter_context(Testbed(spec))
