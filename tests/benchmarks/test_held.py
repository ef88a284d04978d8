"""The store that `held` makes is a valid one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from benchmarks.micro.held import fill
from p2pd.io.places import Places
from p2pd.io.store import FileStore


async def test_every_blob_is_held_and_right(tmp_path: Path) -> None:
    last = fill(Places(tmp_path), 4)
    store = await FileStore.open_dir(tmp_path)
    try:
        held = dict(store.held())
        assert last in held
        assert sorted(held.values()) == [16 << 10, 16 << 10, 5 << 18, 5 << 18]
        for digest, size in held.items():
            blob = await store.open(digest)
            assert blob is not None
            body = await store.read(digest) if size < 1 << 20 else Places(tmp_path).blob(digest).read_bytes()
            assert body is not None
            assert hashlib.sha256(body).hexdigest() == digest.hex
            if size > 1 << 20:
                assert await store.segment_meta(digest, 0) is not None
    finally:
        store.close()
