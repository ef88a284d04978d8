"""Lists of tags and referrers: upstream's word, and memory only when nobody could be asked."""

from __future__ import annotations

import time

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from p2pd.app.listings import Listings
from p2pd.model.errors import Denied, NotFound, P2pdError, RateLimited, Unavailable
from p2pd.model.listing import LISTING_LIMIT, Listing, ListingKey, StaleListing
from p2pd.model.reference import Digest
from p2pd.ports.store import ListingRecord
from tests.support.memory_site import REPOSITORY, MemorySite

SUBJECT = Digest("5" * 64)
KEY = ListingKey.referrers(REPOSITORY, SUBJECT)
OLD, NEW = b'{"manifests":[{}]}', b'{"manifests":[{},{}]}'


@pytest.mark.parametrize("error", [Unavailable("cut"), RateLimited("slow", 3.0)])
async def test_memory_answers_when_nobody_can_be_asked(
    autojump_clock: MockClock, site: MemorySite, error: P2pdError
) -> None:
    node = site.join(1)
    tags = await node.content.tags(REPOSITORY, "n=1")
    some = await node.content.referrers(REPOSITORY, SUBJECT, None)
    assert (tags.stale, some.stale) == (False, False)
    site.cut(error)
    with capture_logs() as logs:
        assert await node.content.tags(REPOSITORY, "n=1") == Listing(tags.body, stale=True)
        assert await node.content.referrers(REPOSITORY, SUBJECT, None) == Listing(some.body, stale=True)
        assert await node.content.referrers(REPOSITORY, SUBJECT, "a/b") == Listing(some.body, stale=True)
    assert node.counted("stale_listings") == 3
    told = [
        line["listing"] for line in logs if (line["event"], line["log_level"]) == ("listing.stale", "warning")
    ]
    assert told == [f"tags of {REPOSITORY} n=1", f"referrers of {REPOSITORY} {SUBJECT}"]
    with pytest.raises(type(error)):
        await node.content.tags(REPOSITORY, "n=2")
    site.cut(None)
    await trio.sleep(31)
    assert not (await node.content.tags(REPOSITORY, "n=1")).stale


@pytest.mark.parametrize("error", [NotFound("deleted"), Denied("no more")])
async def test_a_refusal_is_not_masked_by_memory(
    autojump_clock: MockClock, site: MemorySite, error: P2pdError
) -> None:
    node = site.join(1)
    await node.content.tags(REPOSITORY, "")
    site.cut(error)
    with pytest.raises(type(error)):
        await node.content.tags(REPOSITORY, "")


async def test_who_never_saw_it_asks_the_peers_and_takes_the_newest(
    autojump_clock: MockClock, site: MemorySite
) -> None:
    nodes = [site.join(number) for number in range(1, 5)]
    await site.met()
    now = time.time()
    await nodes[0].store.put_listing(KEY, ListingRecord(OLD, now - 500))
    await nodes[1].store.put_listing(KEY, ListingRecord(NEW, now - 20))
    await nodes[2].store.put_listing(KEY, ListingRecord(b"[]", now))
    site.cut(Unavailable("cut"))
    assert await Listings(nodes[3].site).referrers(REPOSITORY, SUBJECT) == Listing(NEW, stale=True)
    assert await nodes[3].store.listing(KEY) is None, "not kept as confirmed"
    assert await Listings(nodes[0].site).referrers(REPOSITORY, SUBJECT) == Listing(OLD, stale=True)


async def test_what_a_seeder_remembers_is_taken(autojump_clock: MockClock, site: MemorySite) -> None:
    node = site.join(1)
    await node.store.put_listing(KEY, ListingRecord(OLD, time.time()))
    site.cut(Unavailable("cut"))
    site.seeder.fault = StaleListing("it only remembers", NEW)
    assert await Listings(node.site).referrers(REPOSITORY, SUBJECT) == Listing(NEW, stale=True)


async def test_a_huge_list_is_given_and_not_kept(
    autojump_clock: MockClock, site: MemorySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = site.join(1)
    huge = b'{"manifests":[' + b" " * LISTING_LIMIT + b"]}"

    async def answer(*_: object) -> bytes:
        await trio.lowlevel.checkpoint()
        return huge

    monkeypatch.setattr(site.seeder, "referrers", answer)
    assert await Listings(node.site).referrers(REPOSITORY, SUBJECT) == Listing(huge)
    assert await node.store.listing(KEY) is None
