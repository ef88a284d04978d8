"""Content as registries describe it: descriptors, manifests, and what they point at.

Source: OCI image-spec 1.1 (manifest.md, image-index.md, descriptor.md), Docker schema 2.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum

from p2pd.model.errors import InvalidReference, Stale, WrongContent
from p2pd.model.json_text import json_object
from p2pd.model.layout import MANIFEST_LIMIT
from p2pd.model.platform import Platform
from p2pd.model.reference import Digest

__all__ = [
    "Descriptor",
    "Holding",
    "Manifest",
    "Place",
    "StaleTag",
    "choices",
    "filter_referrers",
    "is_media_type",
    "media_type_of",
    "parts",
    "referenced",
]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"

MEDIA_TYPE_LIMIT = 255
"""Longest media type taken, characters (RFC 6838 section 4.2: two names of 127)."""

MANIFEST_TYPES = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Digest, size in bytes (>= 0) and media type of a piece of content."""

    digest: Digest
    size: int
    media_type: str


class Holding(StrEnum):
    """How much of a blob a seeder has."""

    WHOLE = "whole"
    PULLING = "pulling"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest's bytes, checked against their digest, as they go to a client.

    `stale` is true when it answers a tag from memory because nobody could be asked.
    """

    descriptor: Descriptor
    body: bytes
    stale: bool = False

    @classmethod
    def verified(cls, body: bytes, expected: Digest | None, media_type: str | None = None) -> Manifest:
        """Hash `body`; raises WrongContent where it is too large or is not `expected`."""
        if len(body) > MANIFEST_LIMIT:
            raise WrongContent(f"manifest of {len(body)} bytes is over the limit of {MANIFEST_LIMIT}")
        digest = Digest(hashlib.sha256(body).hexdigest())
        if expected is not None and digest != expected:
            raise WrongContent(f"manifest is {digest}, not {expected}")
        return cls(Descriptor(digest, len(body), media_type_of(body, media_type)), body)


class StaleTag(Stale):
    """`descriptor` is what a seeder remembers that could not ask the origin."""

    def __init__(self, message: str, descriptor: Descriptor | None = None) -> None:
        super().__init__(message)
        self.descriptor = descriptor


def is_media_type(text: str) -> bool:
    """Whether it can go into a header and a message to peers: 1 to 255 printable ASCII characters."""
    return 0 < len(text) <= MEDIA_TYPE_LIMIT and text.isascii() and text.isprintable()


def media_type_of(body: bytes, told: str | None = None) -> str:
    """The media type of a manifest body: its own `mediaType`, else its shape, else what was `told`."""
    document = json_object(body)
    own = document.get("mediaType")
    if isinstance(own, str) and is_media_type(own):
        return own
    if "signatures" in document and document.get("schemaVersion") == 1:
        return DOCKER_SCHEMA1
    if isinstance(document.get("manifests"), list):
        return OCI_INDEX
    if "config" in document or "layers" in document:
        return OCI_MANIFEST
    told = (told or "").split(";")[0].strip()
    return told if is_media_type(told) else "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a blob stands among an image's `blobs`: runtimes unpack them by ascending `index`."""

    image: Digest
    index: int
    blobs: tuple[Digest, ...] = ()

    @property
    def below(self) -> tuple[Digest, ...]:
        return self.blobs[: self.index]

    def is_above(self, other: Place) -> bool:
        return self.image == other.image and self.index > other.index


def referenced(body: bytes) -> list[Descriptor]:
    """Descriptors a manifest or index points at, in its order; malformed ones are left out."""
    document = json_object(body)
    found: list[object] = [document.get("config"), document.get("subject")]
    for key in ("layers", "blobs", "manifests"):
        value = document.get(key)
        if isinstance(value, list):
            found.extend(value)
    return [descriptor for item in found if (descriptor := _descriptor(item)) is not None]


def parts(body: bytes) -> list[Descriptor]:
    """The blobs an image is made of: its config and layers, each once, in the manifest's order."""
    document = json_object(body)
    layers = document.get("layers")
    items = [document.get("config"), *(layers if isinstance(layers, list) else [])]
    found = [descriptor for item in items if (descriptor := _descriptor(item)) is not None]
    return list({descriptor.digest: descriptor for descriptor in found}.values())


def choices(body: bytes) -> list[tuple[Descriptor, Platform | None]]:
    """The manifests an index offers, with their platforms where those are told; empty for a manifest."""
    manifests = json_object(body).get("manifests")
    found = []
    for item in manifests if isinstance(manifests, list) else []:
        descriptor = _descriptor(item)
        if descriptor is not None:
            found.append((descriptor, _platform(item.get("platform"))))
    return found


def filter_referrers(body: bytes, artifact_type: str | None) -> bytes:
    """A referrers index with only the manifests of one artifact type.

    Source: distribution-spec 1.1, "Listing Referrers".
    """
    if artifact_type is None:
        return body
    document = json_object(body)
    manifests = document.get("manifests")
    kept = [
        item
        for item in (manifests if isinstance(manifests, list) else [])
        if isinstance(item, dict) and item.get("artifactType") == artifact_type
    ]
    return json.dumps({**document, "manifests": kept}, separators=(",", ":")).encode()


def _platform(item: object) -> Platform | None:
    if not isinstance(item, dict):
        return None
    words = [item.get("os"), item.get("architecture"), item.get("variant") or ""]
    if not all(isinstance(word, str) for word in words):
        return None
    try:
        return Platform.parse("/".join(word for word in words if word))
    except InvalidReference:
        return None


def _descriptor(item: object) -> Descriptor | None:
    if not isinstance(item, dict):
        return None
    digest, size, media_type = item.get("digest"), item.get("size"), item.get("mediaType")
    if not isinstance(digest, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        return None
    try:
        parsed = Digest.parse(digest)
    except InvalidReference:
        return None
    return Descriptor(parsed, size, media_type if isinstance(media_type, str) else "application/octet-stream")
