"""Images to update a site with: made here, deterministic, kept as OCI layouts under build/.

Format: OCI image-spec 1.1 (image-layout.md, manifest.md, config.md). Pushing: OCI
distribution-spec 1.1, "Pushing blobs" (monolithic) and "Pushing manifests".
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.testbed.namespaces import TestbedError
from p2pd.model.content import OCI_INDEX, OCI_MANIFEST, Descriptor, referenced
from p2pd.model.reference import Digest

__all__ = ["Image", "debian_image", "push_image", "push_index", "synthetic_image"]

_CACHE = Path(__file__).parents[2] / "build" / "images"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_TAR = "application/vnd.oci.image.layer.v1.tar"
_TAR_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
_CHUNK = 1 << 20
_TAR_OVERHEAD = 3 * 512  # one header, two closing blocks
_FORMAT = 1

# A layer each, bottom first, the first on top of Debian's essential packages.
_DEBIAN_LAYERS = (
    ("libc6", "libtinfo6", "libselinux1", "libpcre2-8-0", "libgmp10", "libcrypt1", "libacl1"),
    ("libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal", "perl-modules-5.36"),
    ("containerd", "docker-registry", "skopeo", "containernetworking-plugins"),
    ("git", "cpp-12", "libicu72"),
    ("gcc-12",),
)


@dataclass(frozen=True, slots=True)
class Image:
    """An image in an OCI layout: its manifest, and its config and layers in the manifest's order."""

    directory: Path
    manifest: Descriptor
    blobs: tuple[Descriptor, ...]

    @property
    def blob_bytes(self) -> int:
        """Bytes of config and layers."""
        return sum(blob.size for blob in self.blobs)

    @property
    def content(self) -> tuple[Descriptor, ...]:
        """All that a runtime must hold of it."""
        return (self.manifest, *self.blobs)

    def path(self, digest: Digest) -> Path:
        return self.directory / "blobs" / "sha256" / digest.hex

    @classmethod
    def load(cls, directory: Path) -> Image:
        entry = json.loads((directory / "index.json").read_bytes())["manifests"][0]
        manifest = Descriptor(Digest.parse(entry["digest"]), entry["size"], entry["mediaType"])
        body = (directory / "blobs" / "sha256" / manifest.digest.hex).read_bytes()
        return cls(directory, manifest, tuple(referenced(body)))


def synthetic_image(seed: int, size: int, layers: int = 4, cache: Path = _CACHE) -> Image:
    """An image of `size` bytes in `layers` equal layers: tars of random bytes, which nothing compresses."""
    if layers < 1:
        raise ValueError("an image has at least one layer")
    each = size // layers // 512 * 512 - _TAR_OVERHEAD
    if each <= 0:
        raise ValueError(f"{size} bytes are too few for {layers} layers")
    directory = cache / f"synthetic-{_FORMAT}-{seed}-{size}-{layers}"
    if directory.exists():
        return Image.load(directory)
    with _building(directory) as building:
        made = []
        for number in range(layers):
            stream = random.Random(f"{seed} {number}")
            with building.layer(compress=False) as layer:
                header = tarfile.TarInfo(f"random-{seed}-{number}")
                header.size = each
                layer.write(header.tobuf(tarfile.USTAR_FORMAT))
                for offset in range(0, each, _CHUNK):
                    layer.write(stream.randbytes(min(_CHUNK, each - offset)))
                layer.write(bytes(1024))
            made.append(layer)
        building.finish(made)
    return Image.load(directory)


def debian_image(cache: Path = _CACHE) -> Image:
    """A real image of Debian packages, at least 150 MB compressed; the same bytes from the same packages.

    Taken from what is installed, the rest downloaded with apt-get. Raises TestbedError.
    """
    essential = [line[4:] for line in _dpkg_query("${Essential} ${Package}") if line.startswith("yes ")]
    layers = [essential + list(_DEBIAN_LAYERS[0]), *(list(names) for names in _DEBIAN_LAYERS[1:])]
    states = dict(line.split(" ", 1) for line in _dpkg_query("${Package} ${Version} ${db:Status-Status}"))
    installed = {name: state for name, state in states.items() if state.endswith(" installed")}
    wanted = [name for names in layers for name in names]
    identity = json.dumps([_FORMAT, layers, [installed.get(name) for name in wanted]])
    directory = cache / f"debian-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if directory.exists():
        return Image.load(directory)
    with _building(directory) as building, tempfile.TemporaryDirectory(prefix="p2pd-debian-") as unpacked:
        missing = [name for name in wanted if name not in installed]
        _download(missing, Path(unpacked))

        def make(names: list[str]) -> _Layer:
            files: dict[str, Path] = {}
            for name in names:
                files |= _unpacked(Path(unpacked) / name) if name in missing else _installed(name)
            with building.layer(compress=True) as layer:
                _pack(files, layer)
            return layer

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # zlib leaves the interpreter lock
            building.finish(list(pool.map(make, layers)))
    return Image.load(directory)


def push_image(
    image: Image, base_url: str, repository: str, tag: str, login: tuple[str, str] | None = None
) -> None:
    """Push to a registry that wants no credentials, or a basic login; raises httpx.HTTPError."""
    with httpx.Client(base_url=base_url, timeout=60, trust_env=False, auth=login) as client:
        for blob in image.blobs:
            _push_blob(client, image.path(blob.digest), blob, repository)
        body = image.path(image.manifest.digest).read_bytes()
        _push_manifest(client, body, image.manifest.media_type, repository, tag)


def push_index(images: dict[str, Image], base_url: str, repository: str, tag: str) -> Descriptor:
    """Push an index of `images` by their platform, such as linux/arm64, and the images themselves."""
    entries = []
    for platform, image in images.items():
        system, _, architecture = platform.partition("/")
        push_image(image, base_url, repository, str(image.manifest.digest))
        entries.append(_json(image.manifest) | {"platform": {"os": system, "architecture": architecture}})
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    with httpx.Client(base_url=base_url, timeout=60, trust_env=False) as client:
        _push_manifest(client, body, OCI_INDEX, repository, tag)
    return Descriptor(Digest(hashlib.sha256(body).hexdigest()), len(body), OCI_INDEX)


def _push_manifest(client: httpx.Client, body: bytes, media_type: str, repository: str, tag: str) -> None:
    headers = {"Content-Type": media_type}
    client.put(f"/v2/{repository}/manifests/{tag}", content=body, headers=headers).raise_for_status()


def _push_blob(client: httpx.Client, path: Path, blob: Descriptor, repository: str) -> None:
    if client.head(f"/v2/{repository}/blobs/{blob.digest}").status_code == 200:
        return
    begun = client.post(f"/v2/{repository}/blobs/uploads/")
    begun.raise_for_status()
    url = httpx.URL(begun.headers["Location"]).copy_merge_params({"digest": str(blob.digest)})
    with path.open("rb") as body:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        client.put(url, content=iter(lambda: body.read(_CHUNK), b""), headers=headers).raise_for_status()


def _json(blob: Descriptor) -> dict[str, object]:
    return {"mediaType": blob.media_type, "digest": str(blob.digest), "size": blob.size}


class _Layer(io.RawIOBase):
    """A layer being written: hashed before compression (diff id) and after (digest)."""

    def __init__(self, directory: Path, *, compress: bool) -> None:
        descriptor, name = tempfile.mkstemp(dir=directory)
        self._path = Path(name)
        self._file = os.fdopen(descriptor, "wb")
        self._plain = hashlib.sha256()
        self._sink = gzip.GzipFile("", "wb", 6, self._file, mtime=0) if compress else self._file
        self._media_type = _TAR_GZIP if compress else _TAR
        self.blob: Descriptor | None = None

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._plain.hexdigest()}"

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]  # Buffer is 3.12's
        self._plain.update(data)
        self._sink.write(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._sink.close()
            self._file.close()
            self.blob = _name_by_digest(self._path, self._media_type)
        super().close()


class _building:  # noqa: N801  # used as a context manager function would be
    """An OCI layout made aside and moved to its place when it is whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> _building:
        self._directory.parent.mkdir(parents=True, exist_ok=True)
        self._aside = Path(tempfile.mkdtemp(prefix=".making-", dir=self._directory.parent))
        self._blobs = self._aside / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and not self._directory.exists():
                self._aside.rename(self._directory)
        finally:
            shutil.rmtree(self._aside, ignore_errors=True)

    def layer(self, *, compress: bool) -> _Layer:
        return _Layer(self._blobs, compress=compress)

    def finish(self, layers: list[_Layer]) -> None:
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _json(self._put(config, _CONFIG_TYPE)),
            "layers": [_json(layer.blob) for layer in layers if layer.blob is not None],
        }
        index = {"schemaVersion": 2, "manifests": [_json(self._put(manifest, OCI_MANIFEST))]}
        (self._aside / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (self._aside / "index.json").write_text(json.dumps(index))

    def _put(self, document: object, media_type: str) -> Descriptor:
        path = self._blobs / "document"
        path.write_text(json.dumps(document))
        return _name_by_digest(path, media_type)


def _name_by_digest(path: Path, media_type: str) -> Descriptor:
    with path.open("rb") as body:
        digest = Digest(hashlib.file_digest(body, "sha256").hexdigest())
    path.chmod(0o644)
    path.rename(path.with_name(digest.hex))
    return Descriptor(digest, path.with_name(digest.hex).stat().st_size, media_type)


def _dpkg_query(shape: str) -> list[str]:
    return _output(["dpkg-query", "-W", "-f", shape + "\\n"]).splitlines()


def _output(command: list[str], cwd: Path | None = None, timeout: float = 60) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise TestbedError(f"no Debian image: {error}; use a synthetic one (--image 160M)") from error
    if done.returncode != 0:
        why = " | ".join(done.stderr.strip().splitlines()[-1:]) or f"exit code {done.returncode}"
        raise TestbedError(f"no Debian image: {command[0]}: {why}; use a synthetic one (--image 160M)")
    return done.stdout


def _download(packages: list[str], directory: Path) -> None:
    """Unpack each package, not installed here, to a directory of its name."""
    if not packages:
        return
    _output(["apt-get", "download", "-q", *packages], cwd=directory, timeout=300)
    for archive in list(directory.glob("*.deb")):
        name = archive.name.partition("_")[0]
        _output(["dpkg-deb", "-x", str(archive), str(directory / name)])
        archive.unlink()


def _unpacked(root: Path) -> dict[str, Path]:
    return {str(path.relative_to(root)): path for path in root.rglob("*")}


def _installed(package: str) -> dict[str, Path]:
    """Files of an installed package by their real place: with a merged /usr, /bin/x lies in usr/bin."""
    found: dict[str, Path] = {}
    for line in _output(["dpkg", "-L", package]).splitlines():
        path = Path(line)
        if not line.startswith("/") or line == "/." or not os.path.lexists(path):
            continue
        real = path.parent.resolve() / path.name
        found[str(real.relative_to("/"))] = real
    return found


def _pack(files: dict[str, Path], layer: _Layer) -> None:
    """Write a tar that depends on the files' names, modes and bytes alone."""
    with tarfile.open(fileobj=layer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, path in sorted(files.items()):
            entry = archive.gettarinfo(path, name)
            if entry is None or not (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()):
                continue
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "root", "root"
            if entry.isreg():
                with path.open("rb") as body:
                    archive.addfile(entry, body)
            else:
                archive.addfile(entry)
