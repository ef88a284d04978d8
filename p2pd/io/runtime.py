"""What the node's containerd holds, served from containerd's own files: no second copy on this disk.

Rules that hold here:
- Nothing of containerd's is ever written, linked or kept from being deleted. That a file vanishes is normal.
- A file counts only after its sha256 was right once. That is remembered, with the checksums of its pieces,
  for this very file (device, inode, size, time of change); each piece is checked again as it is read.
- Files are hashed when somebody asks for them, one at a time, never all of them at start.

containerd's layout: <root>/io.containerd.content.v1.content/blobs/sha256/<64 hex>; a file is put there by
rename when it is whole (containerd, plugins/content/local).
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio
import xxhash

from p2pd.io.files import Descriptor, Files, ensure_dir, open_readonly, replace_file
from p2pd.io.held import hash_file, read_whole
from p2pd.io.pieces import XXH3_BYTES, PieceTable
from p2pd.io.places import Places
from p2pd.model.content import referenced
from p2pd.model.layout import SMALL_BLOB
from p2pd.model.reference import Digest

__all__ = ["RuntimeContent"]

log = structlog.get_logger()

_BLOBS = Path("io.containerd.content.v1.content") / "blobs" / "sha256"
_MAGIC = b"p2pdvch1"
_MARK = struct.Struct(">8sQQQQ")
_WAITING = 1000
"""Files in line to be hashed; who asks for more finds them not held."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """This very file, unchanged."""

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, known: os.stat_result) -> _Identity:
        return cls(known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class _Vouched:
    """A file whose sha256 was right. `table` is None for a small one: that is hashed at each reading."""

    identity: _Identity
    table: PieceTable | None

    def encode(self) -> bytes:
        each = self.identity
        head = _MARK.pack(_MAGIC, each.device, each.inode, each.size, each.changed_ns)
        body = head + (self.table.encode() if self.table is not None else b"")
        return body + xxhash.xxh3_64_digest(body)

    @classmethod
    def decode(cls, data: bytes) -> _Vouched | None:
        body = data[:-XXH3_BYTES]
        if len(body) < _MARK.size or xxhash.xxh3_64_digest(body) != data[-XXH3_BYTES:]:
            return None
        magic, *numbers = _MARK.unpack_from(body)
        identity = _Identity(*numbers)
        rest = body[_MARK.size :]
        table = PieceTable.decode(rest)
        fits = not rest if identity.size <= SMALL_BLOB else table is not None
        if magic != _MAGIC or not fits or (table is not None and table.size != identity.size):
            return None
        return cls(identity, table)


class RuntimeContent:
    """Blobs of the containerd whose root directory is `root`. `run` is a task of the daemon."""

    def __init__(self, root: Path, places: Places, files: Files) -> None:
        self._blobs = root / _BLOBS
        self._places, self._files = places, files
        self._vouched: dict[Digest, _Vouched] = {}
        self._bad: dict[Digest, _Identity] = {}
        self._waiting: deque[Digest] = deque()
        self._settled: dict[Digest, trio.Event] = {}
        self._more = trio.Event()

    async def run(self) -> None:
        """Hash what was asked for, for ever."""
        await trio.to_thread.run_sync(self._tidy)
        while True:
            while self._waiting:
                digest = self._waiting.popleft()
                try:
                    await self._vouch(digest)
                except OSError as error:
                    log.warning("runtime.unreadable", digest=str(digest), reason=str(error))
                finally:
                    self._settled.pop(digest).set()
            self._more = trio.Event()
            await self._more.wait()

    def size_of(self, digest: Digest) -> int | None:
        """Size of a file that was found right. From memory."""
        vouched = self._vouched.get(digest)
        return None if vouched is None else vouched.identity.size

    def held(self) -> Iterator[tuple[Digest, int]]:
        return iter([(digest, vouched.identity.size) for digest, vouched in self._vouched.items()])

    async def look(self, digest: Digest, within: float, largest: int | None) -> int | None:
        """Size of the file, if it is there and right; hashed first if need be, `within` seconds.

        What takes longer goes on and is known later. `largest`: leave alone what is larger and not known yet.
        """
        try:
            identity = await trio.to_thread.run_sync(self._identify, digest)
        except OSError as error:
            log.debug("runtime.unreadable", digest=str(digest), reason=str(error))
            return None
        vouched = self._vouched.get(digest)
        if vouched is not None:
            if vouched.identity == identity:
                return vouched.identity.size
            self.forget(digest)
        if identity is None or self._bad.get(digest) == identity:
            return None
        if largest is not None and identity.size > largest:
            return None
        if (settled := self._enqueue(digest, first=True)) is not None:
            with trio.move_on_after(within):
                await settled.wait()
        return self.size_of(digest)

    async def open(self, digest: Digest) -> tuple[Descriptor, int, PieceTable | None] | None:
        """The file for reading, if it is still the one that was hashed. Raises OSError."""
        vouched = self._vouched.get(digest)
        if vouched is None:
            return None
        try:
            file = await trio.to_thread.run_sync(open_readonly, self._blobs / digest.hex)
        except FileNotFoundError:
            self.forget(digest)
            return None
        if _Identity.of(os.fstat(file.fd)) != vouched.identity:
            self.forget(digest)
            return None
        return file, vouched.identity.size, vouched.table

    def forget(self, digest: Digest, *, is_bad: bool = False) -> None:
        """Vouch for it no longer; `is_bad`: nor hash this file again."""
        vouched = self._vouched.pop(digest, None)
        if vouched is not None and is_bad:
            self._bad[digest] = vouched.identity

    def _enqueue(self, digest: Digest, *, first: bool) -> trio.Event | None:
        settled = self._settled.get(digest)
        if settled is None:
            if len(self._waiting) >= _WAITING:
                return None
            settled = self._settled[digest] = trio.Event()
            (self._waiting.appendleft if first else self._waiting.append)(digest)
            self._more.set()
        return settled

    async def _vouch(self, digest: Digest) -> None:
        if digest in self._vouched:
            return
        try:
            file = await trio.to_thread.run_sync(open_readonly, self._blobs / digest.hex)
        except FileNotFoundError:
            return
        identity = _Identity.of(os.fstat(file.fd))
        vouched = await trio.to_thread.run_sync(self._load, digest)
        if vouched is None or vouched.identity != identity:
            vouched = await self._hash(file, digest, identity)
        if vouched is None:
            self._bad[digest] = identity
            log.warning("runtime.corrupt", digest=str(digest), bytes=identity.size)
            return
        self._vouched[digest] = vouched
        log.debug("runtime.holds", digest=str(digest), bytes=identity.size)
        if identity.size <= SMALL_BLOB:
            await self._expect(file, digest, identity.size)

    async def _hash(self, file: Descriptor, digest: Digest, identity: _Identity) -> _Vouched | None:
        if identity.size <= SMALL_BLOB:
            body = await trio.to_thread.run_sync(read_whole, file, digest, identity.size)
            return None if body is None else _Vouched(identity, None)
        table = await hash_file(file, digest, identity.size)
        if table is None or _Identity.of(os.fstat(file.fd)) != identity:
            return None
        vouched = _Vouched(identity, table)
        try:
            await trio.to_thread.run_sync(self._keep, digest, vouched)
        except OSError as error:
            log.debug("runtime.not_remembered", digest=str(digest), reason=str(error))
        return vouched

    async def _expect(self, file: Descriptor, digest: Digest, size: int) -> None:
        """Who asked for a manifest will ask for what it names."""
        body = await trio.to_thread.run_sync(read_whole, file, digest, size)
        if body is not None and body[:1] == b"{":
            for part in referenced(body)[:_WAITING]:
                if part.digest not in self._vouched:
                    self._enqueue(part.digest, first=False)

    def _identify(self, digest: Digest) -> _Identity | None:
        try:
            return _Identity.of((self._blobs / digest.hex).stat())
        except FileNotFoundError:
            return None

    def _load(self, digest: Digest) -> _Vouched | None:
        try:
            return _Vouched.decode(self._places.vouched(digest).read_bytes())
        except FileNotFoundError:
            return None

    def _keep(self, digest: Digest, vouched: _Vouched) -> None:
        path = self._places.vouched(digest)
        ensure_dir(self._files, path.parent)
        replace_file(self._files, self._places.new_scratch(), path, vouched.encode())

    def _tidy(self) -> None:
        """Forget about files that are gone; say early when nothing can be read. In a thread."""
        try:
            names = set(os.listdir(self._blobs))
        except OSError as error:
            log.warning("runtime.unreadable", path=str(self._blobs), reason=str(error))
            return
        folder = self._places.vouched_marks
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            if path.name not in names:
                self._files.unlink(path)
