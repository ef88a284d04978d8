"""Asking an admin API over its real socket, and holding its answers against its own description."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

__all__ = ["admin_client", "fits", "lines", "schema_for"]


@asynccontextmanager
async def admin_client(socket: Path) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin", timeout=30) as client:
        yield client


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def schema_for(document: dict[str, Any], method: str, path: str, status: str = "200") -> dict[str, Any]:
    [content] = document["paths"][path][method.lower()]["responses"][status]["content"].values()
    schema: dict[str, Any] = content["schema"]
    return schema


def fits(value: Any, schema: dict[str, Any], document: dict[str, Any], where: str = "$") -> None:
    """Assert that `value` is what the (simple) JSON Schema allows, with no field that it does not name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return fits(value, document["components"]["schemas"][name], document, where)
    if "anyOf" in schema:
        return None if value is None else fits(value, schema["anyOf"][0], document, where)
    kinds = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "array": list,
        "object": dict,
    }
    assert isinstance(value, kinds[schema["type"]]), f"{where}: {value!r} is no {schema['type']}"  # type: ignore[arg-type]
    if schema["type"] == "array":
        for number, each in enumerate(value):
            fits(each, schema["items"], document, f"{where}[{number}]")
    if "properties" in schema:
        assert set(schema["required"]) <= set(value) <= set(schema["properties"]), where
        for name, each in value.items():
            fits(each, schema["properties"][name], document, f"{where}.{name}")
    return None
