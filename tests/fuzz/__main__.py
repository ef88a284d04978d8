"""`make fuzz FUZZ="--seconds 60 --only NAME"`: search each target for a while, two at a time.

What is found is kept in tests/fuzz/corpus/<target>, where the ordinary tests play it again; what only
widens the search, in build/fuzz/<target>, where the next run goes on. The exit code is 1 where anything
was found.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).with_name("corpus")
_HANGS = 10
_MEMORY_MB = 1024
_LONGEST = 8192

_printing = threading.Lock()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--only", choices=sorted(TARGETS), action="append", help="may be repeated")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time")
    order = parser.parse_args()
    with ThreadPoolExecutor(order.jobs) as pool:
        found = list(pool.map(lambda name: search(name, order.seconds), order.only or TARGETS))
    return 0 if not any(found) else 1


def search(name: str, seconds: int) -> bool:
    """Whether anything was found."""
    widened, kept = ROOT / "build" / "fuzz" / name, CORPUS / name
    widened.mkdir(parents=True, exist_ok=True)
    kept.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (widened / f"seed-{number}").write_bytes(seed)
    limits = [f"-timeout={_HANGS}", f"-rss_limit_mb={_MEMORY_MB}", f"-max_len={_LONGEST}"]
    command = [sys.executable, "-m", "tests.fuzz.one", name, *limits, f"-max_total_time={seconds}"]
    command += [f"-artifact_prefix={kept}/", "-print_final_stats=1", str(widened), str(kept)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    if not any(kept.iterdir()):
        kept.rmdir()
    runs = re.search(r"number_of_executed_units: *(\d+)", done.stderr)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    with _printing:
        verdict = "nothing found" if done.returncode == 0 else "FOUND"
        inputs, branches = runs[1] if runs else "?", covered[-1] if covered else "?"
        print(f"{name:<21} {verdict}: {inputs} inputs, {branches} branches", flush=True)
        if done.returncode != 0:
            print("\n".join(done.stderr.splitlines()[-40:]), flush=True)
    return done.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
