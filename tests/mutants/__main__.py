"""`make mutants MUTANTS="--minutes 30 --only plan"`: would the tests of p2pd/decide notice if it were wrong?

mutmut makes small changes to its code, one at a time, and runs the tests of tests/decide that reach the
changed function. A change that none of them notices survives and is printed: either a test is missing or
the change makes no difference that matters. Only a copy in build/mutants is changed. The exit code is 1
where the tests fail as they are, or nothing was tried.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "mutants"
DECIDE = ROOT / "p2pd" / "decide"
_MUTMUT = str(Path(sys.executable).with_name("mutmut"))
_COPIED = ("p2pd", "benchmarks", "tests", "pyproject.toml")
_CONFIG = """\
[mutmut]
source_paths=p2pd/
only_mutate=
    {modules}
also_copy=
    benchmarks/
pytest_add_cli_args_test_selection=
    tests/decide
pytest_add_cli_args=
    --tb=no
    --assert=plain
    -p
    tests.mutants.plugin
    -p
    no:cacheprovider
    -p
    no:xdist
    -p
    no:unraisableexception
timeout_multiplier=3.0
track_dependencies=false
use_git_change_detection=false
"""
_MEMORY = 2 << 30
"""Bytes a mutant may take: one that never ends may also fill a list."""

_PROPERTY = re.compile(r"^( +)@property\n +def (\w+)\(", re.MULTILINE)
_NOTICED = {"killed", "timeout", "segfault"}


def main() -> int:
    modules = sorted(path.stem for path in DECIDE.glob("*.py") if path.stem != "__init__")
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60, help="what is not tried by then is left out")
    parser.add_argument("--only", choices=modules, action="append", help="may be repeated")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    order = parser.parse_args()
    # A shell that starts this in the background has it ignored, also by mutmut, which is stopped by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    prepare(order.only or modules)
    os.nice(19)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    return report() if search(order.minutes * 60, order.jobs) else 1


def prepare(modules: list[str]) -> None:
    """Copy what the tests of the decisions need."""
    shutil.rmtree(WORK, ignore_errors=True)
    for name in _COPIED:
        target = WORK / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    for module in modules:
        path = WORK / "p2pd" / "decide" / f"{module}.py"
        path.write_text(with_plain_properties(path.read_text()))
    listed = "\n    ".join(f"p2pd/decide/{module}.py" for module in modules)
    (WORK / "setup.cfg").write_text(_CONFIG.format(modules=listed))


def with_plain_properties(source: str) -> str:
    """The same code with each property made of a method: mutmut leaves decorated functions alone."""
    return _PROPERTY.sub(r"\1\2 = property(lambda self: self.get_\2())\n\n\1def get_\2(", source)


def search(seconds: float, jobs: int) -> bool:
    """Let mutmut try the mutants; true also when time is over, false where the tests fail as they are."""
    command = [_MUTMUT, "run", "--max-children", str(jobs)]
    # The examples of property tests are the same each time, so that verdicts are.
    environment = os.environ | {"CI": "1", "COLUMNS": "100"}
    log = WORK / "mutmut.log"
    with (
        log.open("wb") as written,
        subprocess.Popen(
            command,
            cwd=WORK,
            env=environment,
            # It shows its progress as on a terminal, whatever it writes to.
            stdout=None if sys.stdout.isatty() else written,
            start_new_session=True,
        ) as process,
    ):
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            print("\ntime is over: the rest is not tried", flush=True)
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            return True
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0 and not sys.stdout.isatty():
        print(f"mutmut ended with {process.returncode}; what it said is in {log}")
    return process.returncode == 0


def report() -> int:
    """Print what became of the mutants, by module, and each that survived."""
    verdicts: dict[str, Counter[str]] = {}
    survivors: list[str] = []
    for name, verdict in re.findall(r"^ *(\S+): (.+)$", _mutmut("results", "--all", "true"), re.MULTILINE):
        verdicts.setdefault(name.split(".")[2], Counter())[verdict] += 1
        if verdict not in _NOTICED and verdict != "not checked":
            survivors.append(name)
    total = sum(verdicts.values(), Counter[str]())
    for survivor in survivors:
        print("\n" + _difference(survivor))
    print(f"\n{'module':<12}{'tried':>7}{'noticed':>9}{'survived':>10}{'score':>8}{'not tried':>11}")
    for module, count in [*sorted(verdicts.items()), ("all", total)]:
        noticed, left = sum(count[verdict] for verdict in _NOTICED), count["not checked"]
        tried = count.total() - left
        score = f"{noticed / tried:.1%}" if tried else "-"
        print(f"{module:<12}{tried:>7}{noticed:>9}{tried - noticed:>10}{score:>8}{left:>11}")
    return 0 if total.total() > total["not checked"] else 1


def _difference(name: str) -> str:
    """Where a mutant is and what it changes, without the unchanged lines."""
    changed = [
        f"  {line[0]} {line[1:].strip()}"
        for line in _mutmut("show", name).splitlines()
        if re.match(r"[-+](?![-+])", line)
    ]
    where = re.sub(r"^p2pd\.decide\.|__mutmut_\d+$", "", name).replace("xǁ", "").replace("ǁ", ".")
    return "\n".join([where.replace(".x_", "."), *changed])


def _mutmut(*arguments: str) -> str:
    return subprocess.run([_MUTMUT, *arguments], cwd=WORK, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
