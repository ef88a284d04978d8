"""The sections of the configuration that node and seeder share."""
# ruff: noqa: RUF009 - key, section and table make dataclass fields

from __future__ import annotations

import re
from dataclasses import dataclass

from p2pd.app.kinds import address, byte_size, choice, duration, http_url, kind, portion, registry, text
from p2pd.app.settings import Entries, key, section, table
from p2pd.model.address import Address
from p2pd.model.stock import Limits, Portion
from p2pd.model.upstream import UpstreamSpec

__all__ = [
    "DEFAULT_UPSTREAMS",
    "LogSection",
    "MetricsSection",
    "StoreSection",
    "directory",
    "log_section",
    "metrics_section",
    "socket_path",
    "store_section",
    "upstreams_table",
]

DEFAULT_UPSTREAMS = (
    UpstreamSpec("docker.io", "https://registry-1.docker.io"),
    UpstreamSpec("ghcr.io", "https://ghcr.io"),
    UpstreamSpec("quay.io", "https://quay.io"),
    UpstreamSpec("registry.k8s.io", "https://registry.k8s.io"),
)

_SOCKET_LIMIT = 100
_ALIAS = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")


@kind("lower-case letters and digits, with single '.', '_' or '-' between them")
def _alias(value: object) -> str:
    name = text(value)
    if name and (len(name) > 128 or not _ALIAS.fullmatch(name)):
        raise ValueError(
            "an alias is lower-case letters and digits, with single '.', '_' or '-' between them"
        )
    return name


@kind("an absolute path")
def directory(value: object) -> str:
    """An absolute path."""
    path = text(value)
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path")
    return path


@kind("an absolute path of at most 100 bytes, or empty")
def socket_path(value: object) -> str:
    """Where a Unix socket can be; empty for none."""
    path = text(value)
    if path and len(directory(path).encode()) > _SOCKET_LIMIT:
        raise ValueError(f"{path!r} is longer than {_SOCKET_LIMIT} bytes, too long for a Unix socket")
    return path


@kind("host:port, or empty")
def _optional_address(value: object) -> Address | None:
    return None if value == "" else address(value)


@dataclass(frozen=True, slots=True)
class MetricsSection:
    listen: Address | None = key(
        _optional_address,
        "",
        "Serve /metrics, /healthz and /readyz, and nothing else, on this address too, for a Prometheus on "
        'another machine: for instance "0.0.0.0:7783". Empty: only beside the registry API.',
    )


@dataclass(frozen=True, slots=True)
class StoreSection:
    max_bytes: int = key(
        byte_size,
        0,
        "The most that content may take. When more comes, what was not used for longest goes first. "
        "0: no limit but `min_free`.",
    )
    min_free: Portion = key(
        portion,
        "10%",
        "What stays free on the file system of `state_dir`, whoever fills it. Kubernetes evicts pods below "
        "10 or 15 % and deletes images above 85 % in use: ask for more than its threshold. 0: no limit.",
    )
    max_age: float = key(
        duration,
        "30d",
        'How long content stays that nobody asks for. "0s": for ever.',
    )

    @property
    def limits(self) -> Limits:
        return Limits(self.max_bytes, self.min_free, self.max_age)


@dataclass(frozen=True, slots=True)
class LogSection:
    level: str = key(
        choice("debug", "info", "warning", "error"), "info", "The least important lines that are written."
    )
    format: str = key(
        choice("auto", "json", "console", "journal"),
        "auto",
        'How lines look: JSON objects, words for a terminal, or words with a level for the journal. "auto": '
        "what stderr is, and JSON where it is neither.",
    )


@dataclass(frozen=True, slots=True)
class _UpstreamEntry:
    url: str = key(
        http_url,
        "https://localhost",
        "Where the registry is: scheme, host and port. http:// is spoken only where it is written. "
        "Every upstream needs it.",
    )
    alias: str = key(
        _alias,
        "",
        "Another first path component for it. "
        "Registries with a port need one for podman, skopeo and CRI-O, "
        "which cannot write a port in a path.",
    )
    ca_file: str = key(text, "", "A PEM file of CAs to trust for this registry besides the system's.")


def _upstreams(entries: Entries) -> tuple[UpstreamSpec, ...]:
    specs: list[UpstreamSpec] = []
    taken: set[str] = set()
    for name, reader in entries.items():
        try:
            host = registry(name)
        except ValueError as error:
            raise reader.wrong(str(error)) from error
        entry = reader.read(_UpstreamEntry)
        if not isinstance(reader.value, dict) or "url" not in reader.value:
            raise reader.wrong(f'url is missing; write for instance url = "https://{host}"')
        for label, field in ((host, ""), (entry.alias, "alias")):
            if label and label in taken:
                raise reader.wrong(f"{label} is already the name or alias of another upstream", field)
            taken.add(label)
        specs.append(UpstreamSpec(host, entry.url, entry.ca_file or None, entry.alias or None))
    return tuple(specs)


def upstreams_table() -> tuple[UpstreamSpec, ...]:
    """The field for [upstreams."<registry>"]."""
    return table(
        _upstreams,
        DEFAULT_UPSTREAMS,
        entry=_UpstreamEntry,
        name="<registry>",
        required=("url",),
        defaults={spec.registry: {"url": spec.url} for spec in DEFAULT_UPSTREAMS},
        meaning="The registries that may be asked, by the name that image references have; no other is "
        "ever "
        "contacted. "
        "Without any such table the four that are shown; with one, exactly those that are written. "
        "Node and seeder must both allow a registry.",
    )


def store_section() -> StoreSection:
    """The field for [store]."""
    return section(
        StoreSection, "How much content is kept, and for how long. What is in use stays in any case."
    )


def log_section() -> LogSection:
    """The field for [log]."""
    return section(LogSection, "What is written to stderr.")


def metrics_section() -> MetricsSection:
    """The field for [metrics]."""
    return section(MetricsSection, "What monitoring can ask; see docs/metrics.md.")
