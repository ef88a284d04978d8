"""The node's id: random, made once, kept in the state directory."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import structlog

from p2pd.io.files import Files, disk_errors, ensure_dir, replace_file

__all__ = ["load_node_id", "renew_node_id"]

_NODE_ID = re.compile(r"[0-9a-f]{32}\n?")

log = structlog.get_logger()


def load_node_id(state_dir: Path, files: Files | None = None) -> str:
    """32 hexadecimal digits, the same at every start. Blocks; raises StoreError, StoreFull.

    Where the file is corrupt the node becomes a new one: its peers forget the old id by themselves.
    """
    files = files or Files()
    path = state_dir / "node-id"
    with disk_errors(f"keep the node's id in {path}"):
        ensure_dir(files, state_dir)
        try:
            with path.open("rb") as file:
                kept = file.read(64).decode("ascii", "replace")
        except FileNotFoundError:
            pass
        else:
            if _NODE_ID.fullmatch(kept):
                return kept.strip()
            log.warning("node.id_replaced", path=str(path))
    return renew_node_id(state_dir, files)


def renew_node_id(state_dir: Path, files: Files | None = None) -> str:
    """Make the node another one, as where a cloned disk gave two nodes one id. Blocks; raises StoreError."""
    node_id = secrets.token_hex(16)
    path = state_dir / "node-id"
    with disk_errors(f"keep the node's id in {path}"):
        replace_file(files or Files(), state_dir / "node-id.new", path, f"{node_id}\n".encode())
    return node_id
