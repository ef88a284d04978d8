"""What holds for every test: property tests never fail for want of speed, and repeat in CI."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A busy machine is slow, not wrong: no example has a deadline. Tests that need more examples say so.
settings.register_profile(
    "p2pd", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
# In CI a red run must be the change's fault: the same examples every time.
settings.register_profile("ci", settings.get_profile("p2pd"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "p2pd")
