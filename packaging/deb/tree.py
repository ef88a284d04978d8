"""The Python tree of a package: every dependency from the hashed lock, for one architecture.

A tree is made from wheels alone, so that any architecture's is made on any machine. It is a pure
function of the lock and the sources: made twice, it is the same byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
CACHE = ROOT / "build" / "deb-cache"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

_ABIS = [f"cp{PYTHON.replace('.', '')}", "abi3", "none"]
_GLIBC = range(36, 4, -1)
"""Minor versions of glibc whose wheels run on Debian 12, newest first."""

_NOT_SHIPPED = ("*.pyi", "*.c", "*.cpp", "*.h", "*.pyx", "*.pxd", "py.typed")
_DIST_INFO_KEPT = re.compile(r"METADATA|(?:.*/)?(?:LICEN[CS]E|COPYING|NOTICE|AUTHORS)[^/]*", re.IGNORECASE)


class BuildError(Exception):
    """One line for whoever builds."""


@dataclass(frozen=True, slots=True)
class Arch:
    """`deb` and `machine` are Debian's and Python's names of it, `strip` its binutils' program."""

    deb: str
    machine: str
    strip: str


ARCHES = {
    "amd64": Arch("amd64", "x86_64", "x86_64-linux-gnu-strip"),
    "arm64": Arch("arm64", "aarch64", "aarch64-linux-gnu-strip"),
}


def run(*command: str | Path, **environment: str) -> str:
    """Run a program to its end and give its output; BuildError with its last lines when it fails."""
    done = subprocess.run(
        [str(word) for word in command], env=os.environ | environment, text=True, capture_output=True
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise BuildError(f"{Path(command[0]).name} failed ({done.returncode}): {' | '.join(said)}")
    return done.stdout


def pip(*arguments: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def wheels(arch: Arch) -> Path:
    """A directory with a wheel of every locked dependency; downloaded once for each lock."""
    identity = hashlib.sha256(LOCK.read_bytes() + PYTHON.encode()).hexdigest()[:16]
    target = CACHE / f"wheels-{arch.deb}-{identity}"
    if target.exists():
        return target
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pip(
        "download",
        "--no-deps",
        "--no-build-isolation",
        "--require-hashes",
        "-r",
        LOCK,
        "-d",
        partial,
        *_for(arch),
    )
    for source in sorted(path for path in partial.iterdir() if path.suffix != ".whl"):
        # A package without wheels may be built here only if it is Python alone.
        pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", partial / "built", source)
        source.unlink()
    for built in sorted((partial / "built").glob("*.whl")):
        if not built.name.endswith("-none-any.whl"):
            raise BuildError(
                f"{built.name} has no wheel for {arch.deb} and cannot be built on another machine"
            )
        built.rename(partial / built.name)
    shutil.rmtree(partial / "built", ignore_errors=True)
    partial.rename(target)
    return target


def _for(arch: Arch) -> list[str]:
    platforms = [f"manylinux_2_{minor}_{arch.machine}" for minor in _GLIBC]
    platforms.append(f"manylinux2014_{arch.machine}")
    words = ["--python-version", PYTHON, "--implementation", "cp"]
    words += [word for platform in platforms for word in ("--platform", platform)]
    return words + [word for abi in _ABIS for word in ("--abi", abi)]


def make_tree(
    target: Path, arch: Arch, *, own: Collection[str], left_out: Collection[str], installed_at: str
) -> None:
    """Fill the empty `target` with the dependencies but those `left_out`, and our packages `own`.

    `installed_at` is where the tree will be on a node: tracebacks name it.
    """
    chosen = [wheel for wheel in sorted(wheels(arch).iterdir()) if _project(wheel) not in left_out]
    pip(
        "install", "--no-index", "--no-deps", "--no-compile", "--only-binary=:all:",
        "--target", target, *_for(arch), *chosen,
    )  # fmt: skip
    for package in own:
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    _prune(target)
    for library in sorted(path for path in target.rglob("*") if ".so" in path.suffixes):
        run(arch.strip, "--strip-unneeded", library)
    # Hash-based and unchecked: no time in them, and no look at the sources at start. One process and
    # one hash seed, because the order of sets and interned names ends up in them.
    run(
        sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
        "-s", target, "-p", installed_at, target, PYTHONHASHSEED="0",
    )  # fmt: skip


def _project(wheel: Path) -> str:
    return wheel.name.partition("-")[0].lower().replace("_", "-")


def _prune(tree: Path) -> None:
    """Take out what nothing needs at run time, and what differs from build to build."""
    shutil.rmtree(tree / "bin", ignore_errors=True)
    for directory in [path for path in tree.rglob("*") if path.is_dir() and path.name in ("tests", "_tests")]:
        shutil.rmtree(directory, ignore_errors=True)
    for pattern in _NOT_SHIPPED:
        for path in tree.rglob(pattern):
            path.unlink()
    for info in tree.glob("*.dist-info"):
        for path in [path for path in info.rglob("*") if path.is_file()]:
            if not _DIST_INFO_KEPT.fullmatch(str(path.relative_to(info))):
                path.unlink()
