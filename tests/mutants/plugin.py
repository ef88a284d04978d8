"""A pytest plugin for quick verdicts: a mutant is done with at its first failure, however that looks."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings


def pytest_sessionstart() -> None:
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", settings.get_profile("ci"), phases=phases)
    settings.load_profile("mutants")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that simulate whole sites come last: most mutants die of a quicker one."""
    items.sort(key=lambda item: "simulator" in item.nodeid)
