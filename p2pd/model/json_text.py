"""JSON from elsewhere, of which nothing is known yet."""

from __future__ import annotations

import json

__all__ = ["json_object"]


def json_object(data: bytes) -> dict[str, object]:
    """The object that `data` is; an empty one where it is no JSON, nested too deeply or something else."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
