"""What is configured in the end, and where each value was written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from p2pd.app.settings import AboutKey, AboutSection, AboutTable, Document, about
from p2pd.model.address import Address
from p2pd.model.rate import Rate, RateWindow
from p2pd.model.stock import Portion
from p2pd.model.upstream import UpstreamSpec

__all__ = ["Setting", "effective", "plain_config"]


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One value, as TOML has it. `path` is its key's parts; `file` and `line` are None for a default."""

    path: tuple[str, ...]
    value: object
    file: str | None = None
    line: int | None = None


def effective(cls: type[Any], document: Document | None) -> Iterator[Setting]:
    """Every key of a configuration class, in order. The document (None: no file) must be right for it."""
    yield from _settings(cls, document.tree if document else {}, (), document)


def _settings(
    cls: type[Any],
    tree: dict[str, Any],
    path: tuple[str, ...],
    document: Document | None,
    required: tuple[str, ...] = (),
) -> Iterator[Setting]:
    for field in dataclasses.fields(cls):
        what, here = about(field), (*path, field.name)
        if isinstance(what, AboutSection):
            yield from _settings(what.cls, tree.get(field.name, {}), here, document)
        elif isinstance(what, AboutTable):
            yield from _entries(what, tree.get(field.name), here, document)
        elif isinstance(what, AboutKey) and field.name in tree:
            yield _written(here, tree[field.name], document)
        elif isinstance(what, AboutKey) and field.name not in required:
            yield Setting(here, what.default)


def _entries(
    what: AboutTable, written: dict[str, Any] | None, path: tuple[str, ...], document: Document | None
) -> Iterator[Setting]:
    if written is None:
        for name, values in what.defaults.items():
            yield from (Setting((*path, name, key), value) for key, value in values.items())
        return
    for name, tree in written.items():
        yield from _settings(what.entry, tree, (*path, name), document, what.required)


def _written(path: tuple[str, ...], value: object, document: Document | None) -> Setting:
    if document is None:
        return Setting(path, value)
    return Setting(path, value, document.source.name, document.source.line_of(path))


def plain_config(config: object) -> dict[str, object]:
    """A configuration as its TOML tables: addresses as text, upstreams by their registry."""
    if not dataclasses.is_dataclass(config):
        raise TypeError(config)
    return {field.name: _toml(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _toml(value: object) -> object:
    if isinstance(value, Address | Rate | RateWindow):
        return str(value)
    if isinstance(value, tuple) and value and all(isinstance(each, UpstreamSpec) for each in value):
        return {
            spec.registry: {"url": spec.url, "alias": spec.alias or "", "ca_file": spec.ca_file or ""}
            for spec in value
        }
    if isinstance(value, Portion):
        return f"{value.percent:g}%" if value.percent else value.byte_count
    if isinstance(value, tuple):
        return [_toml(each) for each in value]
    return plain_config(value) if dataclasses.is_dataclass(value) else value
