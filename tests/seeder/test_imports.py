"""The seeder's package leaves out what only a node needs: the seeder must do without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_seeder_does_without_what_its_package_leaves_out() -> None:
    script = """
import sys
sys.path.insert(0, 'packaging/deb')
import build
left_out = build.PACKAGES['p2pd-seeder'].left_out
print(*left_out)
assert not set(left_out) & set(sys.modules)
sys.modules.update(dict.fromkeys(left_out))
import seeder.cli, seeder.service, seeder.commands
seeder.commands.make_app()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "libtorrent" in done.stdout.split()
