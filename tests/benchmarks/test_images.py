"""Images: the same bytes every time, valid as layers."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest

from benchmarks.testbed import images
from benchmarks.testbed.images import Image, synthetic_image


def test_synthetic_image_has_the_size_and_hashes_it_claims(tmp_path: Path) -> None:
    image = synthetic_image(seed=3, size=1 << 20, layers=2, cache=tmp_path)
    config, *layers = image.blobs
    assert [layer.size for layer in layers] == [1 << 19, 1 << 19]
    for blob in image.content:
        body = image.path(blob.digest).read_bytes()
        assert (len(body), hashlib.sha256(body).hexdigest()) == (blob.size, blob.digest.hex)
    diff_ids = json.loads(image.path(config.digest).read_bytes())["rootfs"]["diff_ids"]
    assert diff_ids == [str(layer.digest) for layer in layers]
    with tarfile.open(image.path(layers[0].digest)) as archive:
        assert archive.getnames() == ["random-3-0"]
    assert len(gzip.compress(image.path(layers[0].digest).read_bytes())) > layers[0].size * 0.99


def test_synthetic_image_depends_on_its_seed_alone(tmp_path: Path) -> None:
    first, second, other = (
        synthetic_image(seed, 1 << 16, 1, cache=tmp_path / place)
        for seed, place in ((1, "a"), (1, "b"), (2, "a"))
    )
    assert first.manifest == second.manifest != other.manifest
    assert synthetic_image(1, 1 << 16, 1, cache=tmp_path / "a") == first


def test_too_many_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too few"):
        synthetic_image(1, 4096, 4, cache=tmp_path)


def test_packed_layer_keeps_links_and_forgets_times(tmp_path: Path) -> None:
    def build(name: str, stamp: int) -> Image:
        root = tmp_path / name
        root.mkdir()
        (root / "file").write_bytes(b"content")
        (root / "link").symlink_to("file")
        (root / "same").hardlink_to(root / "file")
        for path in (root, root / "file"):
            os.utime(path, (stamp, stamp))
        directory = tmp_path / f"{name}.image"
        with images._building(directory) as building:
            with building.layer(compress=True) as layer:
                images._pack(images._unpacked(root), layer)
            building.finish([layer])
        return Image.load(directory)

    first, second = build("a", 1_000_000), build("b", 2_000_000)
    assert first.manifest == second.manifest
    with tarfile.open(first.path(first.blobs[1].digest)) as archive:
        kinds = [(entry.name, entry.type) for entry in archive]
    assert kinds == [("file", tarfile.REGTYPE), ("link", tarfile.SYMTYPE), ("same", tarfile.LNKTYPE)]
    plain = gzip.decompress(first.path(first.blobs[1].digest).read_bytes())
    diff_ids = json.loads(first.path(first.blobs[0].digest).read_bytes())["rootfs"]["diff_ids"]
    assert diff_ids == [f"sha256:{hashlib.sha256(plain).hexdigest()}"]


def test_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with images._building(tmp_path / "image") as building:
            building.layer(compress=False).close()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
