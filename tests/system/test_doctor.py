"""`p2pd doctor` on a real site: it finds nothing wrong, and then each thing that is made wrong."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks.testbed import SiteSpec, Testbed, synthetic_image
from benchmarks.testbed.live_site import LiveSite
from benchmarks.testbed.node import Node
from tests.system.conftest import BuildSite

pytestmark = pytest.mark.system


def doctor(bed: Testbed, node: Node, ref: str) -> tuple[int, dict[str, set[str]]]:
    """Its exit status, and the levels that each check came to."""
    program = Path(sys.executable).with_name("p2pd")
    command: list[str | Path] = [
        program,
        "doctor",
        "--json",
        "--config",
        node.home / "p2pd.toml",
        "--image",
        ref,
    ]
    begun = time.monotonic()
    done = bed.outer.run(command, node.name, check=False)
    print(time.monotonic() - begun, done.stdout, done.stderr)
    levels: dict[str, set[str]] = {}
    for finding in json.loads(done.stdout)["findings"]:
        levels.setdefault(finding["check"], set()).add(finding["level"])
    return done.returncode, levels


def test_a_site_is_well_until_it_is_not(build_site: BuildSite, tmp_path: Path) -> None:
    bed = build_site(SiteSpec(nodes=2))
    bed.start_origin()
    ref = bed.push(synthetic_image(1, 1 << 20, 1, tmp_path))
    bed.start_seeder()
    bed.start_p2pds()
    LiveSite(bed).wait_acquainted()
    node, other = bed.nodes
    code, levels = doctor(bed, node, ref)
    assert code == 0
    for check in ("daemon", "ports", "multicast", "peers", "seeder", "registry", "clock", "pull"):
        assert levels[check] == {"ok"}, check

    assert bed.seeder is not None
    bed.seeder.kill()
    other.kill()
    code, levels = doctor(bed, node, ref)
    assert code == 1
    assert levels["seeder"] == {"fail"}
    assert levels["multicast"] == {"ok"}
    assert levels["peers"] <= {"warn", "fail"}
    assert levels["pull"] == {"ok"}, "the registry itself is still there"

    node.kill()
    bed.outer.run(["ip", "-n", node.name, "link", "set", "eth0", "down"])
    code, levels = doctor(bed, node, ref)
    assert code == 1
    assert levels["daemon"] == {"fail"}
    assert levels["ports"] == {"ok"}
    assert levels["multicast"] == {"fail"}
    assert levels["registry"] == {"warn"}
