"""HTTP: the daemon's own mirror, seeders, registries, and one small object all the way through."""

from __future__ import annotations

import email.utils
import hashlib
import json
import re
import time
from dataclasses import dataclass
from urllib.parse import quote

import trio

from p2pd.app.config import NodeConfig
from p2pd.app.doctor.finding import Finding, fail, ok, warn
from p2pd.app.runtimes.manage import mirror_of
from p2pd.io.probes import http_get
from p2pd.model.errors import P2pdError, Unavailable, WrongContent

__all__ = ["Answer", "Mirror", "check_blob", "check_mirror", "check_wan", "default_image", "judge_wan"]

_METRICS_LIMIT = 4 << 20
_OBJECT_LIMIT = 4 << 20
_SMALL_IMAGES = {
    "registry.k8s.io": "pause:3.9",
    "docker.io": "library/hello-world:latest",
    "quay.io": "prometheus/busybox:latest",
}


@dataclass(frozen=True, slots=True)
class Mirror:
    """The daemon, as its metrics tell it."""

    peers: int
    blobs: int


async def check_mirror(config: NodeConfig) -> tuple[Mirror | None, list[Finding]]:
    """Does the daemon answer where runtimes are told that it is? None where it does not."""
    url = mirror_of(config).url
    try:
        status, _, body = await http_get(f"{url}/metrics", _METRICS_LIMIT, is_local=True)
    except P2pdError as error:
        says = f"no daemon answers at {url}: {error}"
        return None, [fail("daemon", says, "systemctl start p2pd; journalctl -u p2pd -n 50 --no-pager")]
    values = dict(re.findall(r"^(p2pd_[a-z_]+) ([0-9.e+]+)$", body.decode(errors="replace"), re.MULTILINE))
    if status != 200 or "p2pd_peers" not in values:
        says = f"what answers at {url} is not p2pd"
        return None, [fail("daemon", says, f"ss -ltnp 'sport = :{config.mirror.listen.port}'")]
    mirror = Mirror(int(float(values["p2pd_peers"])), int(float(values.get("p2pd_store_blobs", 0))))
    return mirror, [ok("daemon", f"serves {url}, holds {mirror.blobs} blobs")]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service over the WAN said to GET /v2/: its status, or why there was none; `skew` in seconds."""

    url: str
    status: int | None = None
    error: str = ""
    seconds: float = 0.0
    skew: float | None = None


async def check_wan(config: NodeConfig) -> tuple[dict[str, float], list[Finding]]:
    """Seeders, and registries where they may be asked; also how far ahead this clock is, by service."""
    asked: list[tuple[str, str | None]] = [(url, None) for url in config.wan.seeders]
    asked += [(spec.url, spec.ca_file) for spec in config.upstreams if config.wan.direct]
    answers: dict[str, Answer] = {}

    async def ask(url: str, ca_file: str | None) -> None:
        answers[url] = await _ask(url, ca_file)

    async with trio.open_nursery() as nursery:
        for url, ca_file in asked:
            nursery.start_soon(ask, url, ca_file)
    seeders = [answers[url] for url in config.wan.seeders]
    registries = [answers[url] for url, _ in asked[len(seeders) :]]
    skews = {each.url: each.skew for each in [*seeders, *registries] if each.skew is not None}
    return skews, judge_wan(config, seeders, registries)


def judge_wan(config: NodeConfig, seeders: list[Answer], registries: list[Answer]) -> list[Finding]:
    found = []
    works = False
    for each in seeders:
        look = f"curl -sv {each.url}/v2/"
        if each.status == 200:
            works = True
            found.append(ok("seeder", f"{each.url} answers in {each.seconds * 1000:.0f} ms"))
        elif each.status is not None:
            found.append(fail("seeder", f"{each.url} answers {each.status}: not a seeder?", look))
        else:
            found.append(fail("seeder", f"{each.url} does not answer: {each.error}", look))
    for each in registries:
        look = f"curl -sv {each.url}/v2/"
        if each.status in (200, 401):
            works = True
            found.append(ok("registry", f"{each.url} answers in {each.seconds * 1000:.0f} ms"))
        elif each.status is not None:
            found.append(warn("registry", f"{each.url} answers {each.status}", look))
        else:
            found.append(warn("registry", f"{each.url} does not answer: {each.error}", look))
    if not config.wan.seeders and config.wan.direct:
        found.append(ok("seeder", "none is configured: one node of the site pulls from the registry"))
    elif not config.wan.seeders:
        says = "wan.seeders is empty and wan.direct is false: only LAN peers can provide content"
        found.append(fail("seeder", says, "p2pd config show"))
    if not works and (seeders or registries):
        says = "neither seeder nor registry answers: only what the site holds can be pulled"
        found.append(fail("seeder", says, "ip route get 1.1.1.1; resolvectl status"))
    return found


async def _ask(url: str, ca_file: str | None = None) -> Answer:
    begun, at = time.monotonic(), time.time()
    try:
        status, headers, _ = await http_get(f"{url}/v2/", 64 << 10, ca_file=ca_file)
    except P2pdError as error:
        return Answer(url, error=str(error))
    seconds = time.monotonic() - begun
    skew = None
    try:
        told = email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
        skew = at + seconds / 2 - told
    except (ValueError, TypeError, OverflowError):
        pass  # it tells no time
    return Answer(url, status, seconds=seconds, skew=skew)


def default_image(config: NodeConfig) -> str | None:
    """A small public image of a registry that may be asked; None where none is known."""
    allowed = {spec.registry for spec in config.upstreams}
    return next((f"{name}/{image}" for name, image in _SMALL_IMAGES.items() if name in allowed), None)


async def check_blob(config: NodeConfig, image: str | None) -> list[Finding]:
    """Pull one image's manifest and configuration through the mirror, as a runtime does, and hash them."""
    if image is None:
        says = "not tried: no small image of these upstreams is known"
        return [warn("pull", says, "p2pd doctor --image REGISTRY/NAME:TAG")]
    registry, _, rest = image.partition("/")
    name, _, tag = rest.rpartition(":")
    logs = "journalctl -u p2pd -n 50 --no-pager"
    begun = time.monotonic()
    try:
        digest = await _config_digest(config, registry, name, tag)
        blob = await _object(config, registry, f"{name}/blobs/{digest}")
    except P2pdError as error:
        return [fail("pull", f"{image}: {error}", logs)]
    says = f"{image}: manifest and a blob of {len(blob)} bytes came through, hashes right"
    return [ok("pull", f"{says}, {time.monotonic() - begun:.1f} s")]


async def _config_digest(config: NodeConfig, registry: str, name: str, reference: str) -> str:
    """By way of the first manifest of an index. Raises P2pdError."""
    for _ in range(2):
        body = await _object(config, registry, f"{name}/manifests/{reference}")
        try:
            document = json.loads(body)
            if "config" in document:
                return str(document["config"]["digest"])
            reference = str(document["manifests"][0]["digest"])
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise WrongContent("its manifest is malformed") from error
    raise WrongContent("its index holds only indexes")


async def _object(config: NodeConfig, registry: str, path: str) -> bytes:
    """A manifest or blob through the mirror, its hash checked. Raises P2pdError."""
    url = f"{mirror_of(config).url}/v2/{path}?ns={quote(registry, safe='')}"
    status, headers, body = await http_get(url, _OBJECT_LIMIT, is_local=True)
    if status != 200:
        raise Unavailable(f"the mirror answers {status} for {path}: {_message(body)}")
    wanted = path.rpartition("/")[2]
    if ":" not in wanted:
        wanted = headers.get("docker-content-digest", "")
    if wanted != f"sha256:{hashlib.sha256(body).hexdigest()}":
        raise WrongContent(f"{path} came with a wrong hash")
    return body


def _message(body: bytes) -> str:
    """What an error body of the registry API says."""
    try:
        return str(json.loads(body)["errors"][0]["message"])[:200]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return "without a reason"
