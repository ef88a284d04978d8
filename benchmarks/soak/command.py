"""`python -m benchmarks soak`: play a plan, print what came of it, tell by the exit code."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.outcome import aligned, check_writable, save
from benchmarks.sizes import argument, parse_rate
from benchmarks.soak.plan import Event, make_plan
from benchmarks.soak.player import Player
from benchmarks.soak.verdict import LEAST_S, Pull, Series, is_excused, judge_pulls, judge_rest, judge_series
from benchmarks.soak.watch import error_events, tracebacks
from benchmarks.testbed import Image, SiteSpec, Testbed, synthetic_image
from benchmarks.update import sensible_site

__all__ = ["add_arguments", "run"]

_MB = 1_000_000
_IMAGES = ((2, 1), (6, 3), (12, 2), (16, 6), (24, 4), (40, 2), (48, 3))
"""Megabytes and layers of each."""

_MAX_BYTES = 80 * _MB
"""Room in every store: about half of all images."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    rate = argument(parse_rate, "50M (bit/s)")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long (20), beside start and end")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same plan (1)")
    parser.add_argument("--nodes", type=int, default=6, help="nodes of the site (6)")
    parser.add_argument("--wan", type=rate, default="50M", help="WAN, bit/s (50M)")
    parser.add_argument("--plan", action="store_true", help="print the plan, and play nothing")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the daemons' logs here")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the results here")


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 when every promise is kept. Raises TestbedError."""
    plan = make_plan(options.seed, options.minutes * 60, options.nodes, len(_IMAGES))
    if options.plan:
        print("\n".join(map(str, plan)))
        return 0
    check_writable(options.json)
    images = [synthetic_image(900 + number, size * _MB, n) for number, (size, n) in enumerate(_IMAGES)]
    with sensible_site():
        spec = SiteSpec(nodes=options.nodes, wan_bit_s=options.wan)
    with Testbed(spec) as bed:
        player = _play(bed, images, plan)
        if options.logs is not None:
            bed.keep_logs(options.logs)
        broken = [*_judged(player), *tracebacks(bed)]
        errors = error_events(bed)
    if options.json is not None:
        save(_document(options, plan, player, broken, errors), options.json)
    print(_text(player, broken, errors))
    return 1 if broken else 0


def _play(bed: Testbed, images: Sequence[Image], plan: Sequence[Event]) -> Player:
    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    bed.start_origin()
    named = [(bed.push(image, f"soak{number}"), image) for number, image in enumerate(images)]
    player = Player(bed, named, {"store": {"max_bytes": _MAX_BYTES}}, say)
    player.play(plan)
    return player


def _judged(player: Player) -> list[str]:
    seen, watch = player.seen, player.watch
    found = [*watch.broken, *judge_pulls(seen.pulls, watch.outages), *judge_pulls(seen.closing, [])]
    return [*found, *judge_series(watch.series), *judge_rest(*player.at_rest)]


def _text(player: Player, broken: Sequence[str], errors: Counter[str]) -> str:
    seen = player.seen
    happened = ", ".join(f"{count} {kind}" for kind, count in sorted(seen.events.items()))
    lines = [f"events: {happened}; {seen.skipped} pulls skipped: the node had not ended the last one", ""]
    heads = ["pulls", "made", "failed", "excused", "wrong", "median s", "most s"]
    rows = [
        _pull_row("in the storm", seen.pulls, sum(p.code != 0 and _excused(player, p) for p in seen.pulls)),
        _pull_row("afterwards", seen.closing, 0),
    ]
    lines += [*aligned(heads, rows), ""]
    heads = ["daemon", "seconds", "RSS MiB, 2nd quarter", "last"]
    judged = [one for one in player.watch.series if one.seconds >= LEAST_S]
    lines += aligned(heads, [_series_row(one) for one in judged])
    short = len(player.watch.series) - len(judged)
    lines.append(f"{short} lives of daemons were shorter than {LEAST_S:.0f} s and are not judged")
    lines.append(f"for {player.watch.saturated:.0%} of the time this machine had no CPU to spare")
    rested, now = (", ".join(f"{name} {n}" for name, n in found.items()) for found in player.at_rest)
    lines.append(f"open descriptors at rest: before the first pull {rested}; after the last {now}")
    if errors:
        told = ", ".join(f"{count} {event}" for event, count in errors.most_common())
        lines.append(f"log lines of level error: {told}")
    lines += ["", *(f"BROKEN: {line}" for line in broken)] if broken else ["", "every promise was kept"]
    return "\n".join(lines)


def _excused(player: Player, pull: Pull) -> bool:
    return is_excused(pull, player.watch.outages)


def _pull_row(name: str, pulls: Sequence[Pull], excused: int) -> list[str]:
    times = [pull.end - pull.begin for pull in pulls if pull.code == 0] or [0.0]
    failed, wrong = sum(pull.code != 0 for pull in pulls), sum(pull.wrong for pull in pulls)
    numbers = [str(number) for number in (len(pulls), failed, excused, wrong)]
    return [name, *numbers, f"{statistics.median(times):.1f}", f"{max(times):.1f}"]


def _series_row(one: Series) -> list[str]:
    return [one.name, f"{one.seconds:.0f}", *(f"{value / 2**20:.1f}" for value in one.medians())]


def _document(
    options: argparse.Namespace,
    plan: Sequence[Event],
    player: Player,
    broken: Sequence[str],
    errors: Counter[str],
) -> dict[str, object]:
    seen = player.seen
    return {
        "scenario": {
            "seed": options.seed,
            "minutes": options.minutes,
            "nodes": options.nodes,
            "wan_bit_s": options.wan,
        },
        "plan": [str(event) for event in plan],
        "pulls": [_pull_document(player, pull) for pull in seen.pulls],
        "closing": [_pull_document(player, pull) for pull in seen.closing],
        "outages": [[out.place, round(out.begin, 1), round(out.end, 1)] for out in player.watch.outages],
        "series": {one.name: one.samples for one in player.watch.series},
        "saturated": round(player.watch.saturated, 3),
        "errors": dict(errors),
        "broken": list(broken),
    }


def _pull_document(player: Player, pull: Pull) -> dict[str, object]:
    return {
        "node": pull.node,
        "image": pull.image,
        "begin": round(pull.begin, 1),
        "end": round(pull.end, 1),
        "code": pull.code,
        "wrong": pull.wrong,
        "excused": pull.code != 0 and _excused(player, pull),
    }
