"""The store's memory of what upstream said about tags and lists: small files, read when asked for."""

from __future__ import annotations

from functools import partial

import structlog
import trio

from p2pd.io.files import Files, disk_errors
from p2pd.io.listings import read_listing, write_listing
from p2pd.io.places import Places
from p2pd.io.room import Room
from p2pd.io.tags import read_all, read_record, trim_tags, write_record
from p2pd.model.listing import ListingKey
from p2pd.model.reference import Repository, Tag
from p2pd.ports.store import ListingRecord, TagRecord

__all__ = ["FileAnswers"]

log = structlog.get_logger()


class FileAnswers:
    """The part of `p2pd.ports.store.Store` that is about answers; it shares the room of the blobs."""

    def __init__(self, places: Places, files: Files, room: Room) -> None:
        self._places, self._files, self._room = places, files, room

    async def tag(self, repository: Repository, tag: Tag) -> TagRecord | None:
        with disk_errors(f"read what is known of {repository}:{tag}"):
            record, was_corrupt = await trio.to_thread.run_sync(
                read_record, self._places, self._files, repository, tag
            )
        if was_corrupt:
            log.warning("tag.corrupt", repository=str(repository), tag=tag.name)
        return record

    async def all_tags(self) -> list[tuple[Repository, Tag, TagRecord]]:
        with disk_errors("list the tags that are known"):
            return await trio.to_thread.run_sync(read_all, self._places)

    async def put_tag(self, repository: Repository, tag: Tag, record: TagRecord) -> None:
        write = partial(write_record, self._places, self._files, repository, tag, record)
        await self._room.write(f"keep the answer for {repository}:{tag}", write)

    async def listing(self, key: ListingKey) -> ListingRecord | None:
        with disk_errors(f"read what is known of the {key}"):
            record, was_corrupt = await trio.to_thread.run_sync(read_listing, self._places, self._files, key)
        if was_corrupt:
            log.warning("listing.corrupt", listing=str(key))
        return record

    async def put_listing(self, key: ListingKey, record: ListingRecord) -> None:
        write = partial(write_listing, self._places, self._files, key, record)
        await self._room.write(f"keep the {key}", write)

    async def trim_tags(self, keep: int, max_age: float) -> int:
        with disk_errors("look through the answers about tags"):
            return await trio.to_thread.run_sync(trim_tags, self._places, self._files, keep, max_age)
