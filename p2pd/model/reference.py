"""Names of the OCI distribution world: digest, registry, repository, tag.

Grammar: OCI distribution-spec 1.1 ("Pulling manifests") and image-spec 1.1 ("Digests").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from p2pd.model.errors import InvalidReference

__all__ = ["DOCKER_HUB", "Digest", "Repository", "Tag", "parse_image", "parse_reference", "parse_registry"]

DOCKER_HUB = "docker.io"

_HEX64 = re.compile(r"[0-9a-f]{64}")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_REGISTRY = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::[0-9]{1,5})?"
    r"|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?"
)
_MAX_NAME = 255
_SHOWN = 80


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256 content digest. `hex` is 64 lower-case hexadecimal digits."""

    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `sha256:<64 hex>`; raises InvalidReference for anything else."""
        algorithm, colon, hex_ = text.partition(":")
        if not colon or algorithm != "sha256":
            raise InvalidReference(f"digest {_shown(text)} is not sha256:<64 hexadecimal digits>")
        return cls.from_hex(hex_)

    @classmethod
    def from_hex(cls, hex_: str) -> Digest:
        """Take the 64 hexadecimal digits alone; raises InvalidReference."""
        if not _HEX64.fullmatch(hex_):
            raise InvalidReference(f"{_shown(hex_)} is not 64 lower-case hexadecimal digits of a sha256")
        return cls(hex_)

    @property
    def raw(self) -> bytes:
        """The 32 bytes of the sha256."""
        return bytes.fromhex(self.hex)

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


@dataclass(frozen=True, slots=True, order=True)
class Repository:
    """A repository of one upstream registry, e.g. `docker.io` + `library/alpine`.

    `registry` is the name users write (docker.io, not registry-1.docker.io), with its port if any.
    """

    registry: str
    name: str

    @classmethod
    def parse(cls, registry: str, name: str) -> Repository:
        """Check both parts; on Docker Hub a single-component name gets `library/`."""
        registry = parse_registry(registry)
        if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
            raise InvalidReference(f"repository name {_shown(name)} is not valid")
        if registry == DOCKER_HUB and "/" not in name:
            name = f"library/{name}"
        return cls(registry, name)

    def __str__(self) -> str:
        return f"{self.registry}/{self.name}"


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A mutable name inside a repository."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Tag:
        if not _TAG.fullmatch(text):
            raise InvalidReference(f"tag {_shown(text)} is not valid")
        return cls(text)

    def __str__(self) -> str:
        return self.name


def parse_reference(text: str) -> Digest | Tag:
    """Read the `<reference>` of a manifest URL: a digest when it has a colon, else a tag."""
    return Digest.parse(text) if ":" in text else Tag.parse(text)


def parse_image(text: str, default: str = DOCKER_HUB) -> tuple[Repository, Digest | Tag]:
    """Read `[registry/]name[:tag][@digest]` as container runtimes do; raises InvalidReference.

    The first component is a registry where it has a dot or a colon or is `localhost`; else `default`
    is meant. A digest counts before a tag; without both the tag is `latest`.
    """
    name, at, digest = text.partition("@")
    first, slash, rest = name.partition("/")
    is_registry = bool(slash) and (first == "localhost" or "." in first or ":" in first)
    registry, path = (first, rest) if is_registry else (default, name)
    path, _, tag = path.partition(":")
    repository = Repository.parse(registry, path)
    known = Tag.parse(tag or "latest")
    return repository, Digest.parse(digest) if at else known


def parse_registry(text: str) -> str:
    """Check a registry host with optional port; Docker Hub's aliases become `docker.io`."""
    if len(text) > _MAX_NAME or not _REGISTRY.fullmatch(text):
        raise InvalidReference(f"registry {_shown(text)} is not a host name with an optional port")
    text = text.lower()
    return (
        DOCKER_HUB if text in {"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"} else text
    )
