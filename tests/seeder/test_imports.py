"""The seeder's package leaves out what only a node needs: the seeder must do without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_seeder_does_without_what_its_package_leaves_out() -> None:
    build = "import sys; sys.path.insert(0, 'packaging/deb'); import build; "
    left_out = python(build + "print(*build.PACKAGES['p2pd-seeder'].left_out)").split()
    assert "libtorrent" in left_out
    hide = f"import sys; sys.modules.update(dict.fromkeys({left_out}))\n"
    python(hide + "import seeder.cli, seeder.service, seeder.commands; seeder.commands.make_app()")
