"""What the admin API tells. Field names are the JSON keys; what a field is told to be is its description
in the OpenAPI document. Bytes are whole numbers, times are seconds since the epoch, digests are
`sha256:<64 hexadecimal digits>`.
"""
# ruff: noqa: RUF009 - told makes dataclass fields

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Blob",
    "Blobs",
    "Collected",
    "CollectOrder",
    "Gone",
    "Image",
    "Images",
    "Notice",
    "Peer",
    "Peers",
    "Problem",
    "PullEvent",
    "PullOrder",
    "SeederStatus",
    "Site",
    "Sites",
    "Source",
    "Status",
    "Traffic",
    "Transfer",
    "Transfers",
    "VerifyEvent",
    "VerifyOrder",
    "told",
]

ABOUT = "about"


def told(about: str, **settings: Any) -> Any:
    """A field with its description."""
    return field(metadata={ABOUT: about}, **settings)


@dataclass(frozen=True, slots=True)
class Problem:
    """The body of every answer that is an error."""

    error: str = told("One line: what failed, why, what to do next.")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Content bytes, counted by where they came from and where they went."""

    given: int = told("Given to clients of the mirror.", default=0)
    lan: int = told("Received from peers.", default=0)
    seeder: int = told("Fetched over the WAN from a seeder.", default=0)
    origin: int = told("Fetched over the WAN from a registry.", default=0)

    @property
    def wan(self) -> int:
        return self.seeder + self.origin

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.given + other.given,
            self.lan + other.lan,
            self.seeder + other.seeder,
            self.origin + other.origin,
        )

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.given - other.given,
            self.lan - other.lan,
            self.seeder - other.seeder,
            self.origin - other.origin,
        )


@dataclass(frozen=True, slots=True)
class Transfer:
    """A blob on its way to this node."""

    digest: str = told("The blob.")
    repository: str = told("Where it was first asked for, as registry/name.")
    size: int = told("Bytes of the whole blob.")
    have: int = told("Bytes that are here and verified, in any order.")
    assembled: int = told("Bytes from the blob's start that clients can read.")
    rate: float = told("Bytes a second since the last look at it, or since its begin.")
    seconds: float = told("Seconds since it began.")
    way: str = told("By which way the WAN is reached for it: seeder, origin or none.")
    members: int = told("Peers that fetch it too.")
    holders: int = told("Peers that hold it.")


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning or error that was logged."""

    at: float = told("When.")
    level: str = told("warning or error.")
    event: str = told("The log line's event.")
    detail: str = told("The rest of the line, as key=value pairs.")


@dataclass(frozen=True, slots=True)
class Source:
    """A source over the WAN: a seeder, or the registries themselves."""

    name: str = told("A seeder's URL, or origin.")
    up: bool = told("Whether it answered when it was last asked; true while it was not.")
    registries_down: list[str] = told("Registries that it could not reach when it last tried.")


@dataclass(frozen=True, slots=True)
class Status:
    """A node at a glance."""

    version: str = told("Of the running daemon.")
    node: str = told("The node's id.")
    site: str = told("The site it belongs to.")
    started_at: float = told("When the daemon began.")
    mirror: str = told("Address that container runtimes use.")
    control: str = told("Address that peers talk to.")
    swarm_port: int = told("TCP port that peers exchange pieces on.")
    sources: list[Source] = told("Where the WAN leads, in the order in which they are asked.")
    peers: int = told("Live peers.")
    blobs: int = told("Held blobs.")
    blob_bytes: int = told("Their bytes.")
    transfers: list[Transfer] = told("Blobs on their way.")
    since_start: Traffic = told("Traffic of the running daemon.")
    today: Traffic = told("Traffic since local midnight, over restarts.")
    total: Traffic = told("Traffic since counted_since, over restarts.")
    counted_since: float = told("When counting of `total` began.")
    wan_spared_today: int = told(
        "today.given minus what crossed the WAN today; negative where content was fetched ahead of clients."
    )
    wan_spared_total: int = told("The same since counted_since.")
    notices: list[Notice] = told("The last warnings and errors, the newest first.")


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node of the site."""

    node: str | None = told("Its id; null while it was never met.")
    host: str = told("Its address.")
    port: int = told("TCP port of its control plane.")
    live: bool = told("Whether it answers.")
    rtt: float | None = told("Seconds that it took to answer just now; null where it did not.")
    reason: str | None = told("Why it is left out, where that is known.")


@dataclass(frozen=True, slots=True)
class Peers:
    peers: list[Peer] = told("Live ones first, then addresses that are dialled in vain.")


@dataclass(frozen=True, slots=True)
class Image:
    """A tag that was asked for, and how much of its content is held."""

    repository: str = told("registry/name.")
    tag: str = told("The tag.")
    digest: str = told("What it points at.")
    confirmed_at: float = told("When upstream last said so.")
    platforms: list[str] = told("Platforms whose manifest is held, as os/architecture[/variant].")
    size: int = told("Bytes of all content that the held manifests name, each blob once.")
    held: int = told("Bytes of that which are held.")
    complete: bool = told("Whether at least one platform is held whole: it can be pulled without the WAN.")


@dataclass(frozen=True, slots=True)
class Images:
    images: list[Image] = told(
        "Sorted by name and tag. Images pulled by digest alone have no tag: see blobs."
    )


@dataclass(frozen=True, slots=True)
class Blob:
    """Held content: a layer, a config, a manifest."""

    digest: str = told("Its digest.")
    size: int = told("Its bytes.")
    idle: int = told("Seconds since it was last used, about: uses are noted once an hour.")
    images: list[str] = told("Images known to use it, as registry/name:tag.")


@dataclass(frozen=True, slots=True)
class Blobs:
    blobs: list[Blob] = told("Largest first.")


@dataclass(frozen=True, slots=True)
class Transfers:
    transfers: list[Transfer] = told("Blobs on their way.")


@dataclass(frozen=True, slots=True)
class PullOrder:
    """What to bring to this node."""

    reference: str = told("An image: [registry/]name[:tag][@digest], as runtimes write it.")
    platform: str | None = told(
        "os/architecture[/variant], or all; null means this node's own.", default=None
    )


@dataclass(frozen=True, slots=True)
class PullEvent:
    """One line of a pull's answer. The last one is done or error."""

    event: str = told("resolved, plan (once a blob), progress, held (once a blob), done or error.")
    digest: str | None = told("The image's digest, or the blob's.", default=None)
    size: int | None = told("Bytes of the blob; of all blobs in done.", default=None)
    have: int | None = told("In plan and progress: bytes that are here.", default=None)
    stale: bool | None = told(
        "In resolved: nobody upstream could confirm where the tag points.", default=None
    )
    seconds: float | None = told("In done: how long it took.", default=None)
    error: str | None = told("In error: one line.", default=None)


@dataclass(frozen=True, slots=True)
class VerifyOrder:
    """Which held blobs to read and hash again."""

    digests: list[str] = told("Empty means all.", default_factory=list)


@dataclass(frozen=True, slots=True)
class VerifyEvent:
    """One line of a verification's answer. The last one is done or error."""

    event: str = told("ok, corrupt (now dropped), missing, progress, done or error.")
    digest: str | None = told("The blob.", default=None)
    size: int | None = told("Its bytes; in done: all bytes that were read.", default=None)
    checked: int | None = told("In progress: bytes read of all; in done: blobs that were read.", default=None)
    bad: int | None = told("In done: blobs that are corrupt or missing.", default=None)
    error: str | None = told("In error: one line.", default=None)


@dataclass(frozen=True, slots=True)
class CollectOrder:
    """How to bring the store within its limits."""

    dry_run: bool = told("Only tell what would go.", default=False)


@dataclass(frozen=True, slots=True)
class Gone:
    """Something that the store let go, or would."""

    name: str = told("A digest, or the file of an ended transfer below the store's directory.")
    size: int = told("Bytes.")
    idle: float = told("Seconds since its last use.")
    reason: str = told(
        "unused (max_age), twin (the container runtime holds it, and it is served from there), "
        "spare (a better ranked node holds on to it), shared (other nodes have it), "
        "last (no live node is known to have it), tiny (a manifest, when nothing else was left), "
        "abandoned (the rest of an ended transfer)."
    )


@dataclass(frozen=True, slots=True)
class Collected:
    """What one collection did, or would."""

    gone: list[Gone] = told("In the order in which they went.")
    freed: int = told("Bytes of these.")
    missing: int = told("Bytes that must go besides for the limits to hold, and cannot.")
    tags: int = told("Answers about tags that were forgotten.")
    held_bytes: int = told("Content held afterwards.")
    disk_free: int = told("Bytes free on the store's file system afterwards.")
    disk_total: int = told("Bytes of that file system.")
    dry_run: bool = told("Nothing went: this is what would.")


@dataclass(frozen=True, slots=True)
class SeederStatus:
    """A seeder at a glance."""

    version: str = told("Of the running daemon.")
    started_at: float = told("When the daemon began.")
    listen: str = told("Address that nodes use.")
    upstreams: list[str] = told("Registries that it pulls from.")
    blobs: int = told("Held blobs.")
    blob_bytes: int = told("Their bytes.")
    sites: int = told("Sites that were ever served.")
    served: int = told("Content bytes given to them, over restarts.")
    transfers: int = told("Blobs on their way from registries.")
    notices: list[Notice] = told("The last warnings and errors, the newest first.")


@dataclass(frozen=True, slots=True)
class Site:
    """A site that was served."""

    site: str = told("Its name, as its nodes tell; empty where a client does not.")
    last_used: float = told("When it was last served.")
    answers: int = told("Bodies it was given, ranges counted one by one.")
    bytes: int = told("Content bytes it was given.")


@dataclass(frozen=True, slots=True)
class Sites:
    sites: list[Site] = told("The latest served first.")
