"""Configuration files of the system: read whole, changed so that a cut leaves the old or the new one.

Owner, mode and symbolic links of a file that is there are kept. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from p2pd.io.files import Files, ensure_dir, replace_file
from p2pd.model.errors import ConfigError, StoreError

__all__ = ["BACKUP", "SystemFiles"]

BACKUP = ".before-p2pd"
_SCRATCH = ".p2pd-new"
_LIMIT = 1024 * 1024


class SystemFiles:
    """Paths are absolute as the configured programs see them; `root` is where their `/` is."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._disk = Files()

    def read(self, path: str) -> bytes | None:
        """The whole file; None where there is none. Raises ConfigError."""
        try:
            with self._at(path).open("rb") as file:
                data = file.read(_LIMIT + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigError(f"cannot read {self._at(path)}: {_why(error)}") from error
        if len(data) > _LIMIT:
            raise ConfigError(f"{self._at(path)} is larger than {_LIMIT} bytes: p2pd leaves it alone")
        return data

    def entries(self, path: str) -> list[str] | None:
        """Names in a directory; None where there is no such directory. Raises ConfigError."""
        try:
            return sorted(entry.name for entry in os.scandir(self._at(path)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigError(f"cannot read {self._at(path)}: {_why(error)}") from error

    def replace(self, path: str, data: bytes | None, *, keep: bool = False) -> None:
        """Write a file, or (None) delete it. Raises StoreError, and then the file is as before.

        `keep` leaves what was there beside it, as `<name>.before-p2pd`; a backup that is again what
        the file says is deleted.
        """
        with _errors(f"write {self._at(path)}"):
            target = self._at(path).resolve()
            backup = target.with_name(target.name + BACKUP)
            if data is None:
                target.unlink(missing_ok=True)
                backup.unlink(missing_ok=True)
                return
            if keep:
                self._write(backup, target.read_bytes(), target)
            self._write(target, data, target)
            if backup.exists() and backup.read_bytes() == data:
                backup.unlink()

    def remove_dirs(self, paths: Iterable[str]) -> None:
        """Remove directories that are empty, in the order given. Raises StoreError."""
        for path in paths:
            with _errors(f"remove {self._at(path)}"):
                self._at(path).rmdir()

    def _write(self, path: Path, data: bytes, like: Path) -> None:
        """Owner and mode are those of `like`; of a new file root's, readable by all, whatever the umask."""
        self._make_dirs(path.parent)
        scratch = path.with_name(path.name + _SCRATCH)
        try:
            status = like.stat()
            mode, owner, group = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        except FileNotFoundError:
            mode, owner, group = 0o644, -1, -1
        replace_file(_Owned(mode, owner, group), scratch, path, data)

    def _make_dirs(self, path: Path) -> None:
        missing = [each for each in (path, *path.parents) if not each.exists()]
        ensure_dir(self._disk, path)
        for each in missing:
            each.chmod(0o755)

    def _at(self, path: str) -> Path:
        return self._root / path.lstrip("/")


class _Owned(Files):
    """Files that get their mode and owner before they get their name."""

    def __init__(self, mode: int, owner: int, group: int) -> None:
        self._facts = mode, owner, group

    def rename(self, source: Path, target: Path) -> None:
        mode, owner, group = self._facts
        if owner >= 0 and (owner, group) != (os.geteuid(), os.getegid()):
            os.chown(source, owner, group)
        source.chmod(mode)
        super().rename(source, target)


def _why(error: OSError) -> str:
    hint = "; run it as root" if isinstance(error, PermissionError) and os.geteuid() else ""
    return f"{error.strerror or error}{hint}"


@contextlib.contextmanager
def _errors(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot {doing}: {_why(error)}") from error
