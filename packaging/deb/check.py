"""Check the packages beyond what the tests do: `make deb-check` (root; some minutes).

Every package is built twice and must be the same byte for byte; lintian must find no error; and the
daemons of both architectures must start from their packages, arm64 under qemu, in a minimal Debian.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

import build
import p2pd
from tree import ARCHES, CACHE, ROOT, Arch, BuildError, run

HERE = Path(__file__).parent
OUT = ROOT / "build"
READY_S = 180.0
"""An emulated processor on a busy machine is slow."""

_EMULATORS = {"arm64": "/usr/bin/qemu-aarch64-static"}
_COMMON = '[admin]\nsocket = ""\n[log]\nformat = "json"\n'
_CONFIGS = {
    # zeroconf needs netlink messages that qemu does not translate.
    "p2pd": (
        '[mirror]\nlisten = "127.0.0.1:0"\n'
        '[lan]\ncontrol = "127.0.0.1:0"\nswarm_port = 0\nmulticast = false\n'
    ),
    "p2pd-seeder": '[seeder]\nlisten = "127.0.0.1:0"\n',
}
_START = """
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
mount --bind /dev "$2/root/dev"
shift; directory=$1; shift
exec chroot "$directory/root" "$@" run --config /etc/check.toml
"""


def check_same(name: str, arch: Arch, release: build.Release) -> Path:
    """Build into build/ and once more elsewhere; BuildError where the two differ."""
    first = build.build(build.PACKAGES[name], arch, OUT, release)
    with tempfile.TemporaryDirectory(dir=CACHE) as other:
        second = build.build(build.PACKAGES[name], arch, Path(other), release)
        sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)]
    if sums[0] != sums[1]:
        raise BuildError(f"{first.name} is not the same when it is built again: compare them with diffoscope")
    return first


def check_starts(name: str, arch: Arch, package: Path) -> None:
    """Start the package's daemon in a minimal Debian of its architecture, ask it, and stop it."""
    base = CACHE / f"root-{arch.deb}"
    run(HERE / "root.sh", arch.deb, base)
    with tempfile.TemporaryDirectory(prefix="start-", dir=CACHE) as work:
        upper = Path(work) / "upper"
        for directory in ("upper", "work", "root"):
            (Path(work) / directory).mkdir()
        run("dpkg-deb", "-x", package, upper)
        (upper / "etc/check.toml").write_text(_CONFIGS[name] + _COMMON)
        command = ["/usr/bin/python3", "-I", f"/usr/bin/{name}"]
        if (emulator := _EMULATORS.get(arch.deb)) is not None and arch.deb != _own():
            shutil.copy(emulator, upper / "emulator")
            command.insert(0, "/emulator")
        _start(name, ["unshare", "--mount", "sh", "-ec", _START, "sh", str(base), work, *command])


def _own() -> str:
    return run("dpkg", "--print-architecture").strip()


def _start(name: str, command: list[str]) -> None:
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command], stderr=subprocess.PIPE, text=True
    ) as daemon:
        timer = threading.Timer(READY_S, daemon.kill)
        timer.start()
        try:
            where, said = _ready(daemon)
            if where is None:
                raise BuildError(f"{name} did not start: {' | '.join(said[-5:])}")
            with urllib.request.urlopen(f"http://{where}/v2/", timeout=60) as answer:
                if answer.status != 200:
                    raise BuildError(f"{name} answers {answer.status} to /v2/")
            daemon.send_signal(signal.SIGTERM)
            daemon.communicate()
        finally:
            timer.cancel()
            daemon.kill()
    if daemon.returncode != 0:
        raise BuildError(f"{name} ended with status {daemon.returncode} after SIGTERM")


def _ready(daemon: subprocess.Popen[str]) -> tuple[str | None, list[str]]:
    """The address that the daemon serves, and what it said until then; None when it ended instead."""
    said = []
    assert daemon.stderr is not None
    for line in daemon.stderr:
        said.append(line.strip())
        if '.ready"' in line:
            event = json.loads(line)
            return event.get("mirror") or event["listen"], said
    return None, said


def main() -> int:
    try:
        release = build.Release.current()
        CACHE.mkdir(parents=True, exist_ok=True)
        for name in build.PACKAGES:
            for arch in ARCHES.values():
                package = check_same(name, arch, release)
                run("lintian", "--allow-root", "--fail-on", "error", package)
                check_starts(name, arch, package)
                size = package.stat().st_size / 1e6
                print(
                    f"{package.name}: {size:.1f} MB, same twice, lintian without errors, starts", flush=True
                )
    except (BuildError, OSError) as error:
        print(f"check: {error}", file=sys.stderr)
        return 1
    print(f"version {p2pd.__version__}: all packages are good")
    return 0


if __name__ == "__main__":
    sys.exit(main())
