"""What nodes of a site say to each other. Values only; `p2pd.wire.codec` puts them on the wire.

A node asks with a request and gets exactly one reply (or `Refused`); a notice has no reply.
Bit fields are little-endian in each byte: bit `i` is `field[i // 8] >> (i % 8) & 1`, one bit a
stripe of the blob (see p2pd.model.layout).
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pd.model.content import Descriptor
from p2pd.model.listing import ListingKey
from p2pd.model.rate import LinkUse
from p2pd.model.reference import Digest, Repository, Tag

__all__ = [
    "PROTOCOL_VERSION",
    "Fetch",
    "Fetched",
    "Hello",
    "Interest",
    "Interested",
    "Join",
    "Joined",
    "Message",
    "Notice",
    "Ping",
    "Pong",
    "Progress",
    "ProgressBatch",
    "ProgressDelta",
    "Query",
    "QueryReply",
    "Read",
    "ReadReply",
    "Recall",
    "Recalled",
    "Refused",
    "Reply",
    "Request",
    "Resolve",
    "Resolved",
    "SegmentReady",
    "Want",
    "WantReply",
    "UseQuery",
    "UseReply",
    "Wanted",
]

PROTOCOL_VERSION = 1

DELTAS_LIMIT = 12
"""Most blobs one `ProgressBatch` speaks of."""

INTERESTED_LIMIT = 60

READ_LIMIT = 256 * 1024
"""Most bytes one `Read` may ask for."""


@dataclass(frozen=True, slots=True)
class Hello:
    """First message in both directions: who is speaking. `swarm_port` is libtorrent's TCP port.

    `instance` is drawn at each start: it tells a node's own address from that of another node with
    its id (a cloned disk).
    """

    node_id: str
    site: str
    swarm_port: int
    control_port: int
    instance: int = 0


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you alive?"""


@dataclass(frozen=True, slots=True)
class Pong:
    """Yes."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The request could not be answered; `reason` is one line, `kind` names the error's class.

    kind: "not-found", "denied", "unavailable", "busy" or "fault".
    """

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How a node stands with one blob it is fetching.

    `have`: stripes it holds and can give. `claimed`: stripes it holds or is fetching over the WAN
    right now. `wan`: by which way it can fetch: "seeder", "origin" or "none". `done`: it is no
    longer fetching (it holds the blob when `have` is full, else it gave up). `waits`: nothing of late
    came of what it claims.
    """

    digest: Digest
    size: int
    have: bytes
    claimed: bytes
    wan: str
    done: bool = False
    waits: bool = False


@dataclass(frozen=True, slots=True)
class ProgressDelta:
    """How a node stands with one blob, to those who know how it stood (its Progress, earlier deltas).

    `gained`: stripes had that were not at the last report. `flying`: all stripes that it is fetching over
    the WAN or has from there unverified; others are no longer. Each a bit field that begins at a stripe: bit
    `i` is stripe `…_from + i`.
    """

    digest: Digest
    size: int
    gained_from: int
    gained: bytes
    flying_from: int
    flying: bytes
    wan: str
    waits: bool = False


@dataclass(frozen=True, slots=True)
class ProgressBatch:
    """Of all blobs that a node is fetching and that the hearer is a member of, those with news."""

    deltas: tuple[ProgressDelta, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """Do you hold this digest, whole and verified?"""

    digest: Digest


@dataclass(frozen=True, slots=True)
class QueryReply:
    """`held_size` in bytes when held; `wanted_size` when it is being fetched there; else None."""

    held_size: int | None
    wanted_size: int | None


@dataclass(frozen=True, slots=True)
class Want:
    """I am fetching this blob; this is how I stand. From now on send me your Progress on it."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class WantReply:
    """`held`: I hold it whole. `progress`: I am fetching it too, and stand like this."""

    held: bool
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """I am fetching this blob. Told to everybody in a large site, where `Want` goes to a few only."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class Interest:
    """Who said that it is fetching this blob?"""

    digest: Digest


@dataclass(frozen=True, slots=True)
class Interested:
    """Ids of at most INTERESTED_LIMIT nodes that did, those that may fetch for all among them."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Join:
    """I have segment `index` of this blob in my session: load it if you hold pieces of it.

    `knows_hashes`: spare me its metadata, which are most of the answer. `fingerprint`: of the metadata that
    another node told me (`SegmentMeta.fingerprint`), else empty; where yours are the same say just that.
    """

    digest: Digest
    size: int
    index: int
    knows_hashes: bool = False
    fingerprint: bytes = b""


@dataclass(frozen=True, slots=True)
class Joined:
    """`loaded`: I have it in my session, dial me. `piece_hashes`: its metadata unless you know it.

    `is_same`: my metadata have the fingerprint that you named.
    """

    loaded: bool
    piece_hashes: bytes | None
    is_same: bool = False


@dataclass(frozen=True, slots=True)
class SegmentReady:
    """The metadata of a segment, told to everyone who wants the blob as soon as it is known."""

    digest: Digest
    size: int
    index: int
    piece_hashes: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """Give me bytes [offset, offset + length) of a blob you hold; length <= READ_LIMIT."""

    digest: Digest
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class ReadReply:
    data: bytes


@dataclass(frozen=True, slots=True)
class Fetch:
    """You own this small object: hold it (fetching it over the WAN if need be), then tell me its size.

    `is_manifest` says which path of the registry API it is under.
    """

    repository: Repository
    digest: Digest
    is_manifest: bool


@dataclass(frozen=True, slots=True)
class Fetched:
    """Held now, and this large in bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Resolve:
    """What does this tag point at? `upstream`: ask the WAN for me, else only what you remember."""

    repository: Repository
    tag: Tag
    upstream: bool


@dataclass(frozen=True, slots=True)
class Resolved:
    """`age`: seconds since the origin last confirmed it. None: I do not know."""

    descriptor: Descriptor | None
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class Recall:
    """What did upstream last answer to this, as far as you remember?"""

    key: ListingKey


@dataclass(frozen=True, slots=True)
class Recalled:
    """`age`: seconds since upstream said so. None: I do not know."""

    body: bytes | None
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class UseQuery:
    """What do you use of WAN and LAN at the moment?"""


@dataclass(frozen=True, slots=True)
class UseReply:
    use: LinkUse


Request = Ping | Query | Want | Join | Read | Fetch | Resolve | UseQuery | Interest | Recall
Reply = (
    Pong
    | QueryReply
    | WantReply
    | Joined
    | ReadReply
    | Fetched
    | Resolved
    | UseReply
    | Interested
    | Recalled
    | Refused
)
Notice = Progress | ProgressBatch | SegmentReady | Wanted
Message = Hello | Request | Reply | Notice
