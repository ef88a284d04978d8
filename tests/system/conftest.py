"""What system tests share: a testbed builder, skipped in clear words where none can be built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from benchmarks.testbed import SiteSpec, Testbed, missing_prerequisite
from tests.system.clients import ClientSite

BuildSite = Callable[[SiteSpec], Testbed]


@pytest.fixture
def build_site() -> Iterator[BuildSite]:
    """Build testbeds that are gone when the test ends."""
    if (why := missing_prerequisite()) is not None:
        pytest.skip(f"no testbed: {why}")
    with ExitStack() as stack:
        yield lambda spec: stack.enter_context(Testbed(spec))


@pytest.fixture(scope="session")
def client_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientSite]:
    """One node with p2pd, for all the clients that pull through it."""
    if (why := missing_prerequisite()) is not None:
        pytest.skip(f"no testbed: {why}")
    with ClientSite(tmp_path_factory.mktemp("images")) as site:
        yield site
