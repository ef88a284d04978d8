"""Which registries the front end accepts, from the configured upstreams."""

from __future__ import annotations

from collections.abc import Sequence

from p2pd.model.upstream import UpstreamSpec
from p2pd.wire.registry_api import Upstreams

__all__ = ["upstreams_of"]


def upstreams_of(specs: Sequence[UpstreamSpec], default: str) -> Upstreams:
    """Registries and their aliases; `default` counts only where it is one of them."""
    allowed = {spec.registry: spec.registry for spec in specs}
    allowed |= {spec.alias: spec.registry for spec in specs if spec.alias}
    return Upstreams(allowed, allowed.get(default))
