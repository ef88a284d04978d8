"""The read side of the OCI distribution API: URL in, request value out.

Source: OCI distribution-spec 1.1. Which upstream registry a request means, in this order: the `ns`
query parameter (containerd, and Docker with the containerd store; the path is then the bare
repository), a registry or alias as first path component (podman, skopeo, CRI-O), the default
registry (Docker Engine). Only configured upstreams are ever named in a result, so a request cannot
make this host contact another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_to_bytes, urlencode

from p2pd.model.errors import InvalidReference
from p2pd.model.reference import Digest, Repository, Tag, parse_registry
from p2pd.wire.registry_errors import ApiError

__all__ = [
    "ApiRequest",
    "BaseCheck",
    "BlobRequest",
    "ManifestRequest",
    "ReferrersRequest",
    "TagsRequest",
    "Upstreams",
    "parse_request",
]

_MAX_PATH = 2048
_MAX_FIELDS = 16
_MAX_TAGS = re.compile(r"[0-9]{1,9}", re.ASCII)
_OTHER_DIGEST = re.compile(r"(?!sha256:)[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", re.ASCII)
_ARTIFACT_TYPE = re.compile(r"[!-~]{1,255}", re.ASCII)
_NOT_CONFIGURED = "add it to the configured registries, or pull it without the mirror"


@dataclass(frozen=True, slots=True)
class BaseCheck:
    """`GET /v2/`: does this speak the API?"""


@dataclass(frozen=True, slots=True)
class ManifestRequest:
    repository: Repository
    reference: Digest | Tag


@dataclass(frozen=True, slots=True)
class BlobRequest:
    repository: Repository
    digest: Digest


@dataclass(frozen=True, slots=True)
class TagsRequest:
    """`limit` (`n`) is None when not asked for."""

    repository: Repository
    limit: int | None
    last: Tag | None

    @property
    def query(self) -> str:
        """The paging part of the query, rebuilt from checked values; empty without paging."""
        pairs = {"n": self.limit, "last": self.last}
        return urlencode({key: value for key, value in pairs.items() if value is not None})


@dataclass(frozen=True, slots=True)
class ReferrersRequest:
    repository: Repository
    digest: Digest
    artifact_type: str | None


ApiRequest = BaseCheck | ManifestRequest | BlobRequest | TagsRequest | ReferrersRequest


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Which registries may be asked for, and how they may be called.

    `allowed` maps each accepted name (a registry itself, or an alias) to the registry it means.
    `default` is the registry of a bare path, allowed by being named here; None refuses bare paths.
    """

    allowed: Mapping[str, str]
    default: str | None = None
    _known: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises InvalidReference where a target is not a registry."""
        known = {name.lower(): parse_registry(registry) for name, registry in self.allowed.items()}
        if self.default is not None:
            known.setdefault(parse_registry(self.default), parse_registry(self.default))
        object.__setattr__(self, "_known", known)

    def find(self, name: str) -> str | None:
        """The registry that `name` means, None when it is not allowed."""
        name = name.lower()
        if name in self._known:
            return self._known[name]
        try:
            return self._known.get(parse_registry(name))
        except InvalidReference:
            return None


def parse_request(path: str, query: str, upstreams: Upstreams) -> ApiRequest:
    """Read the raw (percent-encoded) path and query of a GET or HEAD; raises ApiError, nothing else."""
    text = _decoded(path)
    if text in {"/v2", "/v2/"}:
        return BaseCheck()
    if not text.startswith("/v2/"):
        raise ApiError(404, "UNSUPPORTED", "not a path of the registry API, which begins with /v2/")
    fields = _fields(query)
    name, kind, reference = _split(text.removeprefix("/v2/"))
    repository = _repository(name, fields.get("ns", ""), upstreams)
    if kind == "tags":
        return _tags(repository, fields)
    if kind == "manifests":
        return ManifestRequest(repository, _manifest_reference(reference))
    if kind == "blobs":
        return BlobRequest(repository, _digest(reference, "BLOB_UNKNOWN"))
    artifact_type = fields.get("artifactType") or None
    if artifact_type is not None and not _ARTIFACT_TYPE.fullmatch(artifact_type):
        raise ApiError(400, "UNSUPPORTED", "artifactType is not a media type")
    return ReferrersRequest(repository, _digest(reference, "NAME_UNKNOWN"), artifact_type)


def _decoded(path: str) -> str:
    try:
        text = unquote_to_bytes(path).decode("ascii")
    except UnicodeError:
        raise ApiError(400, "NAME_INVALID", "the path is not ASCII") from None
    if len(text) > _MAX_PATH or not text.isprintable():
        raise ApiError(400, "NAME_INVALID", f"the path is over {_MAX_PATH} characters or has control ones")
    return text


def _fields(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise ApiError(400, "UNSUPPORTED", "the query is malformed or has too many fields") from None
    fields: dict[str, str] = {}
    for key, value in pairs:
        fields.setdefault(key, value)
    return fields


def _split(path: str) -> tuple[str, str, str]:
    """Name, kind and reference. The kind is looked for from the right: a name may contain such words."""
    head, _, reference = path.rpartition("/")
    name, _, kind = head.rpartition("/")
    if name and (kind in {"manifests", "blobs", "referrers"} or (kind, reference) == ("tags", "list")):
        return name, kind, reference
    raise ApiError(404, "UNSUPPORTED", "this mirror serves manifests, blobs, tags/list and referrers only")


def _repository(name: str, namespace: str, upstreams: Upstreams) -> Repository:
    if namespace:
        return _allowed(namespace, name, upstreams)
    first, slash, rest = name.partition("/")
    if slash and (upstreams.find(first) is not None or first == "localhost" or {".", ":"} & set(first)):
        return _allowed(first, rest, upstreams)
    if upstreams.default is None:
        raise ApiError(404, "NAME_UNKNOWN", "the request names no registry and no default is configured")
    return _parsed(upstreams.default, name)


def _allowed(registry: str, name: str, upstreams: Upstreams) -> Repository:
    known = upstreams.find(registry)
    if known is None:
        shown = registry if len(registry) <= 80 and registry.isprintable() else "named in the request"
        raise ApiError(404, "NAME_UNKNOWN", f"registry {shown} is not mirrored here; {_NOT_CONFIGURED}")
    return _parsed(known, name)


def _parsed(registry: str, name: str) -> Repository:
    try:
        return Repository.parse(registry, name)
    except InvalidReference as error:
        raise ApiError(400, "NAME_INVALID", str(error)) from error


def _manifest_reference(text: str) -> Digest | Tag:
    if ":" in text:
        return _digest(text, "MANIFEST_UNKNOWN")
    return _tag(text)


def _tag(text: str) -> Tag:
    try:
        return Tag.parse(text)
    except InvalidReference as error:
        raise ApiError(400, "TAG_INVALID", str(error)) from error


def _digest(text: str, unknown: str) -> Digest:
    if _OTHER_DIGEST.fullmatch(text):
        # Valid, but p2pd checks sha256 only: "not here" sends the client to its next host.
        raise ApiError(404, unknown, "only sha256 content is mirrored here")
    try:
        return Digest.parse(text)
    except InvalidReference as error:
        raise ApiError(400, "DIGEST_INVALID", str(error)) from error


def _tags(repository: Repository, fields: Mapping[str, str]) -> TagsRequest:
    limit, last = fields.get("n"), fields.get("last")
    if limit is not None and not _MAX_TAGS.fullmatch(limit):
        raise ApiError(400, "PAGINATION_NUMBER_INVALID", "n is not a number of tags")
    return TagsRequest(repository, None if limit is None else int(limit), None if not last else _tag(last))
