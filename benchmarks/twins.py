"""`twins`: the rows of the fault matrix that decisions matter to, in virtual time, over many seeds.

Each row of `faults` has a twin here, of the same name, which plays its fault on a simulated site
(benchmarks.simulator): which node, when, the WAN's rate, latency and lost notices follow from the seed. The
blob is small beside what eight nodes have in flight: bounds are wider than a row's (docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.simulator.broken import BrokenSite
from benchmarks.simulator.node import Node
from benchmarks.simulator.site import MIB
from benchmarks.testbed import TestbedError
from p2pd.decide.plan import Way

__all__ = ["TWINS", "Played", "Twin", "add_arguments", "play", "run"]

_SIZE = 24 * MIB
_LIMIT = 300.0
_WORST = 3


@dataclass(frozen=True, slots=True)
class Twin:
    """`wan_ratio` and `extra_s` (over one plain download) are the most that is allowed; `held_s` is how long
    a peer in reach may have had what a node fetches all the same (None: not judged)."""

    name: str
    fault: str
    play: Callable[[BrokenSite, random.Random], None]
    wan_ratio: float
    extra_s: float
    held_s: float | None = 1.5
    nodes: int = 8
    way: Way = Way.SEEDER


@dataclass(frozen=True, slots=True)
class Played:
    """What one seed came to; `broken` is empty where all promises held."""

    seed: int
    wan_ratio: float
    extra_s: float
    held_s: float
    broken: tuple[str, ...]


def play(twin: Twin, seed: int) -> Played:
    """One twin with one seed; the same seed is the same run."""
    chance = random.Random(f"{twin.name} {seed}")
    site = BrokenSite(
        twin.nodes,
        _SIZE,
        seed=seed,
        wan=chance.choice((2e6, 3e6, 5e6)),
        latency=chance.uniform(0.0005, 0.01),
        loss=chance.choice((0.0, 0.0, 0.05)),
        way=twin.way,
    )
    floor = site.layout.size / site.wan
    twin.play(site, chance)
    broken = []
    try:
        seconds = site.run(limit=_LIMIT)
    except AssertionError as error:
        seconds = float("inf")
        broken.append(str(error))
    extra = seconds - floor
    if site.wan_ratio > twin.wan_ratio:
        broken.append(f"WAN ratio {site.wan_ratio:.2f} > {twin.wan_ratio:.2f}")
    if extra > twin.extra_s:
        broken.append(f"{extra:.1f} s more than a download > {twin.extra_s:.1f}")
    if twin.held_s is not None and site.longest_held > twin.held_s:
        broken.append(f"fetched what a peer had had for {site.longest_held:.1f} s > {twin.held_s:.1f}")
    return Played(seed, site.wan_ratio, extra, site.longest_held, tuple(broken))


# Faults. `site.at` takes moments, of which share 1 is the end of one plain download.


def _moment(site: BrokenSite, share: float) -> float:
    return share * site.layout.size / site.wan


def _some_moment(site: BrokenSite, chance: random.Random) -> float:
    return _moment(site, chance.uniform(0.1, 0.9))


def _killed_at(share: float) -> Callable[[BrokenSite, random.Random], None]:
    def fault(site: BrokenSite, chance: random.Random) -> None:
        victim, when = chance.choice(site.nodes), _moment(site, share)
        site.at(when, lambda: site.leave(victim))
        site.at(when + chance.uniform(0.5, 6.0), lambda: site.restart(victim))

    return fault


def _off(many: Callable[[int], int]) -> Callable[[BrokenSite, random.Random], None]:
    def fault(site: BrokenSite, chance: random.Random) -> None:
        when = _some_moment(site, chance)
        for victim in chance.sample(site.nodes, many(len(site.nodes))):
            site.at(when, partial(site.leave, victim))

    return fault


def _hangs(site: BrokenSite, chance: random.Random) -> None:
    victim = chance.choice(site.nodes)
    site.at(_some_moment(site, chance), lambda: site.hang(victim, 30.0))


def _starved(site: BrokenSite, chance: random.Random) -> None:
    """Every node acts up to 3 s late, now and then."""

    def starve(node: Node) -> None:
        site.freeze(node, chance.uniform(0.0, 3.0))
        site.after(chance.expovariate(1 / 3), partial(starve, node))

    for node in site.nodes:
        site.at(chance.uniform(0.0, 2.0), partial(starve, node))


def _slow_uplink(site: BrokenSite, chance: random.Random) -> None:
    chance.choice(site.nodes).uplink = 0.01


def _partitioned(site: BrokenSite, chance: random.Random) -> None:
    half = chance.sample(site.nodes, len(site.nodes) // 2)
    when = _some_moment(site, chance)
    site.at(when, lambda: site.cut_off(half, 1))
    site.at(when + 20.0, lambda: site.heal(half, 3.0))


def _met_late(site: BrokenSite, chance: random.Random) -> None:
    for number, node in enumerate(site.nodes):
        site.cut_off([node], number)
        site.at(chance.uniform(0.0, 1.0), partial(site.heal, [node], 0.5))


def _address_changes(site: BrokenSite, chance: random.Random) -> None:
    victim, when = chance.choice(site.nodes), _some_moment(site, chance)
    site.at(when, lambda: site.cut_off([victim], 1))
    site.at(when + chance.uniform(0.5, 10.0), lambda: site.heal([victim], 1.0))


def _flaps(site: BrokenSite, chance: random.Random) -> None:
    victim, when = chance.choice(site.nodes), _some_moment(site, chance)
    for _ in range(5):
        site.at(when, lambda: site.cut_off([victim], 1))
        when += chance.uniform(0.2, 2.0)
        site.at(when, lambda: site.heal([victim], 0.5))
        when += chance.uniform(0.5, 2.0)


def _left_out(site: BrokenSite, chance: random.Random) -> None:
    victim = chance.choice(site.nodes)
    site.cut_off([victim], 1)


def _way_lost(way: Way, back: bool) -> Callable[[BrokenSite, random.Random], None]:
    """Each node sees within a second that the seeder is gone, and within three that it is back after 10 s."""

    def fault(site: BrokenSite, chance: random.Random) -> None:
        when = _some_moment(site, chance)
        for node in site.nodes:
            site.at(when + chance.uniform(0.0, 1.0), partial(site.set_way, way, [node]))
            if back:
                again = when + 10.0 + chance.uniform(0.0, 3.0)
                site.at(again, partial(site.set_way, Way.SEEDER, [node], cut=way is Way.ORIGIN))

    return fault


def _wan_hangs(site: BrokenSite, chance: random.Random) -> None:
    when, rate = _some_moment(site, chance), site.wan
    site.at(when, lambda: site.set_wan(0.0))
    site.at(when + 10.0, lambda: site.set_wan(rate))


def _leader_slows(rate: float) -> Callable[[BrokenSite, random.Random], None]:
    """Twice, the origin gives the leader's request only `rate` bytes a second."""

    def slow(site: BrokenSite, chance: random.Random) -> None:
        for node in site.nodes:
            if node.leads:
                site.set_cap(node, rate)
                site.after(chance.uniform(2.0, 12.0), partial(site.set_cap, node, float("inf")))

    def fault(site: BrokenSite, chance: random.Random) -> None:
        for _ in range(2):
            site.at(_some_moment(site, chance), partial(slow, site, chance))

    return fault


def _origin_cuts(site: BrokenSite, chance: random.Random) -> None:
    def cut() -> None:
        for node in site.nodes:
            if node.leads:
                site.cut_requests(node)

    for _ in range(3):
        site.at(_some_moment(site, chance), cut)


def _false_holder(uplink: float | None) -> Callable[[BrokenSite, random.Random], None]:
    """A node says that it has all; `uplink` is what share of a link's rate it gives, None for nothing."""

    def fault(site: BrokenSite, chance: random.Random) -> None:
        liar = chance.choice(site.nodes)
        if uplink is None:
            liar.on_lan = False
        else:
            liar.uplink = uplink
        site.at(chance.uniform(0.01, 1.0), lambda: site.become_holder(liar))

    return fault


def _wrong_pieces(site: BrokenSite, chance: random.Random) -> None:
    liar = chance.choice(site.nodes)
    liar.on_lan = False
    site.at(0.01, lambda: site.become_holder(liar))
    for judge in site.nodes:
        if judge is not liar:
            site.at(chance.uniform(0.1, 4.0), partial(site.blame, liar, judge))


def _yields(site: BrokenSite, chance: random.Random) -> None:
    """Some nodes hold the blob back behind others for a while."""

    def hold_back(node: Node, is_behind: bool) -> None:
        node.plan.is_behind = is_behind
        site.poke(node)

    for node in chance.sample(site.nodes, chance.randrange(1, len(site.nodes) + 1)):
        when = chance.uniform(0.01, 4.0)
        site.at(when, partial(hold_back, node, True))
        site.at(when + chance.uniform(1.0, 8.0), partial(hold_back, node, False))


def _disk_full(site: BrokenSite, chance: random.Random) -> None:
    """A node that cannot store gives up, and tells so."""
    victim = chance.choice(site.nodes)

    def give_up() -> None:
        for peer in list(victim.known):
            site.blame(victim, peer)
        site.leave(victim)

    site.at(_some_moment(site, chance), give_up)


def _rolling(site: BrokenSite, chance: random.Random) -> None:
    """One after the other ends and begins again."""
    when = chance.uniform(0.2, 2.0)
    for node in chance.sample(site.nodes, len(site.nodes)):
        site.at(when, partial(site.leave, node))
        when += chance.uniform(0.3, 2.0)
        site.at(when, partial(site.restart, node))


TWINS = [
    Twin("kill-10", "a node ends at 10 % and begins again", _killed_at(0.1), 1.25, 8.0),
    Twin("kill-50", "a node ends at 50 % and begins again", _killed_at(0.5), 1.25, 8.0),
    Twin("kill-95", "a node ends at 95 % and begins again", _killed_at(0.95), 1.25, 8.0),
    Twin("power-off", "a node vanishes", _off(lambda _: 1), 1.15, 7.0),
    Twin("half-off", "half of the nodes vanish", _off(lambda n: n // 2), 1.6, 12.0),
    Twin("half-off-100", "half of a hundred nodes vanish", _off(lambda n: n // 2), 1.8, 15.0, None, 100),
    Twin("hang", "a node hangs for 30 s, and goes on", _hangs, 1.2, 33.0),
    Twin("starved", "nodes act up to 3 s late", _starved, 1.5, 15.0, 4.0),
    Twin("slow-uplink", "a node gives at 1/100", _slow_uplink, 1.2, 7.0),
    Twin("partition", "the LAN falls in halves for 20 s", _partitioned, 2.05, 22.0),
    Twin("no-multicast", "nodes meet up to 1.5 s late", _met_late, 2.75, 24.0),
    Twin("address-change", "a node is away up to 11 s", _address_changes, 2.05, 20.0),
    Twin("flap", "a node's link flaps five times", _flaps, 1.45, 15.0),
    Twin("peer-version", "a node is left out", _left_out, 2.05, 17.0),
    Twin("seeder-restart", "the seeder is away for 10 s", _way_lost(Way.ORIGIN, back=True), 1.9, 15.0),
    Twin("seeder-gone", "the seeder is gone for good", _way_lost(Way.ORIGIN, back=False), 1.7, 12.0),
    Twin("wan-cut", "the WAN fails for 10 s", _way_lost(Way.NONE, back=True), 1.7, 20.0),
    Twin("wan-hang", "the WAN hangs for 10 s", _wan_hangs, 1.25, 15.0),
    Twin("origin-stall", "the leader's request stalls", _leader_slows(0.0), 1.5, 30.0, way=Way.ORIGIN),
    Twin("origin-drip", "the leader gets 1 KB/s", _leader_slows(1e3), 1.5, 30.0, way=Way.ORIGIN),
    Twin("origin-cut", "the leader's request breaks off", _origin_cuts, 1.25, 20.0, way=Way.ORIGIN),
    Twin("peer-have", "a node lies that it has all", _false_holder(None), 1.2, 15.0),
    Twin("peer-drip", "a holder gives 1 KB/s", _false_holder(1e-5), 1.2, 15.0),
    Twin("peer-pieces", "a holder lies, and is blamed", _wrong_pieces, 1.2, 15.0),
    Twin("yield", "nodes hold the blob back for a while", _yields, 1.2, 15.0),
    Twin("disk-full", "a node gives up", _disk_full, 1.25, 7.0),
    Twin("rolling", "each node ends and begins again in turn", _rolling, 2.5, 30.0),
]


# The command.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", metavar="NAME", action="append", help="play this twin (may be repeated)")
    parser.add_argument("--seeds", type=int, default=100, help="runs of each (100)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed (0)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every run there")


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 when every promise held with every seed. Raises TestbedError."""
    if options.seeds < 1:
        raise TestbedError("--seeds: at least one")
    results = []
    is_broken = False
    print(f"{'twin':16}{'seeds':>6}{'broken':>8}{'WAN':>7}{'most':>7}{'extra s':>9}{'most':>7}{'CPU s':>7}")
    for twin in _chosen(options.only):
        begun = time.process_time()
        played = [play(twin, options.first + number) for number in range(options.seeds)]
        for line in _told(twin, played, time.process_time() - begun):
            print(line, flush=True)
        is_broken = is_broken or any(one.broken for one in played)
        results.append({"name": twin.name, "fault": twin.fault, "runs": [asdict(one) for one in played]})
    if options.json is not None:
        try:
            options.json.write_text(json.dumps(results, indent=1) + "\n")
        except OSError as error:
            raise TestbedError(f"{options.json} cannot be written: {error.strerror}") from error
    return int(is_broken)


def _chosen(names: list[str] | None) -> list[Twin]:
    known = {twin.name: twin for twin in TWINS}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise TestbedError(f"no twin is called {unknown[0]}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else TWINS


def _told(twin: Twin, played: list[Played], cpu_s: float) -> Iterator[str]:
    """A line, and one for each of the worst seeds that broke a promise."""
    broken = sorted((one for one in played if one.broken), key=lambda one: (-one.wan_ratio, -one.extra_s))
    ratios, extras = sorted(one.wan_ratio for one in played), sorted(one.extra_s for one in played)
    middle = len(played) // 2
    yield (
        f"{twin.name:16}{len(played):>6}{len(broken):>8}{ratios[middle]:>7.2f}{ratios[-1]:>7.2f}"
        f"{extras[middle]:>9.1f}{extras[-1]:>7.1f}{cpu_s:>7.1f}  {twin.fault}"
    )
    for one in broken[:_WORST]:
        yield f"    seed {one.seed}: {'; '.join(one.broken)}"
