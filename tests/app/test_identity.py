"""The node's id file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from p2pd.app.identity import load_node_id
from p2pd.model.errors import StoreError
from tests.support.power import CutFiles, PowerCut


def test_id_is_made_once(tmp_path: Path) -> None:
    node_id = load_node_id(tmp_path / "new" / "state")
    assert re.fullmatch("[0-9a-f]{32}", node_id)
    assert load_node_id(tmp_path / "new" / "state") == node_id
    assert load_node_id(tmp_path / "other") != node_id
    assert (tmp_path / "other" / "node-id").read_text().endswith("\n")


@pytest.mark.parametrize(
    "content", [b"", b"x" * 32, b"A" * 32, b"0" * 31, b"0" * 33, b"\xff" * 32, b"0" * 32 + b"\n\n"]
)
def test_corrupt_id_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "node-id").write_bytes(content)
    node_id = load_node_id(tmp_path)
    assert re.fullmatch("[0-9a-f]{32}", node_id)
    assert load_node_id(tmp_path) == node_id


def test_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot keep the node's id in"):
        load_node_id(tmp_path / "file")


@pytest.mark.parametrize("cut_at", range(5))
def test_power_cut_leaves_a_good_id_or_none(tmp_path: Path, cut_at: int) -> None:
    root = tmp_path / "state"
    root.mkdir()
    files = CutFiles(root, cut_at)
    with pytest.raises(PowerCut):
        load_node_id(root, files)
    for number, leave in enumerate((files.leave_everything, files.leave_names_only, files.leave_synced_only)):
        left = tmp_path / f"left{number}"
        leave(left)
        if (left / "node-id").exists():
            kept = (left / "node-id").read_text().strip()
            assert load_node_id(left) == kept
        assert re.fullmatch("[0-9a-f]{32}", load_node_id(left))
    files.close()
