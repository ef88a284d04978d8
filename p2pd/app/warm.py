"""Bringing an image to this node without a client: `p2pd pull`.

The same way as a runtime's: the tag is resolved, a platform chosen, manifest and blobs fetched through the
node's own content, so that the site still fetches each byte once. Transfers belong to the daemon: who
breaks a pull off stops hearing of it, and what has begun is finished.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from p2pd.app.node_content import NodeContent
from p2pd.app.transfer import Transfer
from p2pd.decide.platform import choose
from p2pd.model.admin import PullEvent
from p2pd.model.content import Descriptor, Manifest, choices, parts
from p2pd.model.errors import NotFound, P2pdError, UserMistake, fresh
from p2pd.model.platform import Platform
from p2pd.model.reference import Digest, Repository, Tag

__all__ = ["warm_image"]

AT_ONCE = 3
"""Blobs at a time, as containerd does."""

TELL_EVERY = 0.5

Tell = Callable[[PullEvent], Awaitable[None]]


async def warm_image(
    content: NodeContent,
    repository: Repository,
    reference: Digest | Tag,
    platform: Platform | None,
    tell: Tell,
) -> None:
    """Have everything of an image held; None means all its platforms. Raises P2pdError."""
    began = trio.current_time()
    top = await content.manifest(repository, reference)
    await tell(PullEvent("resolved", str(top.descriptor.digest), stale=top.stale))
    manifests = await _manifests(content, repository, top, platform)
    blobs = {blob.digest: blob for manifest in manifests for blob in parts(manifest.body)}
    if not blobs:
        raise UserMistake(f"{repository} {top.descriptor.digest} has no layers: it is no container image")
    for blob in blobs.values():
        await tell(PullEvent("plan", str(blob.digest), blob.size, have=0))
    await _fetch_all(content, repository, list(blobs.values()), tell)
    total = sum(blob.size for blob in blobs.values())
    await tell(PullEvent("done", size=total, seconds=round(trio.current_time() - began, 3)))


async def _manifests(
    content: NodeContent, repository: Repository, top: Manifest, platform: Platform | None
) -> list[Manifest]:
    offered = choices(top.body)
    if not offered:
        return [top]
    if platform is None:
        wanted = [descriptor for descriptor, _ in offered]
    else:
        chosen = choose(offered, platform)
        if chosen is None:
            there = ", ".join(sorted({str(each) for _, each in offered if each is not None})) or "none named"
            raise NotFound(f"{repository} has no image for {platform}; it has: {there}")
        wanted = [chosen]
    return [await content.manifest(repository, descriptor.digest) for descriptor in wanted]


async def _fetch_all(
    content: NodeContent, repository: Repository, blobs: Sequence[Descriptor], tell: Tell
) -> None:
    """The first failure ends it: the image cannot be whole any more."""
    slots = trio.Semaphore(AT_ONCE)
    failures: list[P2pdError] = []

    async def fetch(blob: Descriptor) -> None:
        try:
            transfer = await content.warm(repository, blob.digest, blob.size)
            if transfer is not None:
                await _follow(transfer, tell)
        except P2pdError as error:
            failures.append(error)
            nursery.cancel_scope.cancel()
        else:
            await tell(PullEvent("held", str(blob.digest), blob.size))
        finally:
            slots.release()

    async with trio.open_nursery() as nursery:
        for blob in blobs:
            await slots.acquire()  # here, not in the task: blobs begin in the manifest's order
            nursery.start_soon(fetch, blob)
    if failures:
        raise fresh(failures[0])


async def _follow(transfer: Transfer, tell: Tell) -> None:
    """Tell how it comes along until it ends; raises what it failed with."""
    told = -1
    while not transfer.ended.is_set():
        have = transfer.bytes_held
        if have != told:
            told = have
            await tell(PullEvent("progress", str(transfer.digest), transfer.layout.size, have=have))
        with trio.move_on_after(TELL_EVERY):
            await transfer.ended.wait()
    if transfer.failure is not None:
        raise fresh(transfer.failure)
