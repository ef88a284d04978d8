"""Which images a store knows, and how much of each it holds. Shared by node and seeder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from p2pd.model.admin import Blob, Image
from p2pd.model.content import choices, parts
from p2pd.model.errors import StoreError
from p2pd.model.layout import MANIFEST_LIMIT
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.ports.store import Store, TagRecord

__all__ = ["blobs_of", "images_of"]

log = structlog.get_logger()


@dataclass(slots=True)
class _Content:
    """What an image names, by digest with sizes, as far as its manifests are held."""

    sizes: dict[Digest, int] = field(default_factory=dict)
    platforms: list[str] = field(default_factory=list)
    complete: bool = False


async def images_of(store: Store) -> list[Image]:
    """Every tag that was asked for, sorted. Reads manifests from the disk. Raises StoreError."""
    return [image for image, _ in await _known(store)]


async def blobs_of(store: Store) -> list[Blob]:
    """Every held blob, the largest first, with the images that use it. Raises StoreError."""
    users: dict[Digest, list[str]] = {}
    for image, content in await _known(store):
        for digest in content.sizes:
            users.setdefault(digest, []).append(f"{image.repository}:{image.tag}")
    held = sorted(store.stock().held, key=lambda blob: (-blob.size, blob.digest))
    return [
        Blob(str(blob.digest), blob.size, round(max(0.0, blob.idle)), users.get(blob.digest, []))
        for blob in held
    ]


async def _known(store: Store) -> list[tuple[Image, _Content]]:
    found = []
    for repository, tag, record in sorted(await store.all_tags(), key=lambda item: item[:2]):
        content = await _content_of(store, record.descriptor.digest)
        found.append((_image(store, repository, tag, record, content), content))
    return found


def _image(store: Store, repository: Repository, tag: Tag, record: TagRecord, content: _Content) -> Image:
    return Image(
        str(repository),
        tag.name,
        str(record.descriptor.digest),
        record.confirmed_at,
        content.platforms,
        sum(content.sizes.values()),
        sum(content.sizes[digest] for digest in content.sizes if _holds(store, digest)),
        content.complete,
    )


async def _content_of(store: Store, digest: Digest) -> _Content:
    content = _Content()
    body = await _manifest(store, digest)
    if body is None:
        return content
    content.sizes[digest] = len(body)
    offered = choices(body)
    if not offered:
        _add(store, content, body, [])
    for descriptor, platform in offered:
        child = await _manifest(store, descriptor.digest)
        if child is not None:
            content.sizes[descriptor.digest] = len(child)
            _add(store, content, child, [str(platform)] if platform else [])
    return content


def _add(store: Store, content: _Content, body: bytes, platforms: Iterable[str]) -> None:
    named = {descriptor.digest: descriptor.size for descriptor in parts(body)}
    content.sizes.update(named)
    content.platforms.extend(platforms)
    content.complete |= bool(named) and all(_holds(store, digest) for digest in named)


def _holds(store: Store, digest: Digest) -> bool:
    return store.size_of(digest) is not None


async def _manifest(store: Store, digest: Digest) -> bytes | None:
    size = store.size_of(digest)
    if size is None or size > MANIFEST_LIMIT:
        return None
    try:
        return await store.read(digest, is_use=False)
    except StoreError as error:
        # One bad file must not hide all the other images.
        log.warning("image.unreadable", digest=str(digest), reason=str(error))
        return None
