"""`simulate`: the decisions of p2pd in sites larger than any machine can hold, in virtual time.

Every node of a site starts at once with an empty store and fetches one blob; the seeder has it. Then as many
sites as wanted, each of a few nodes, do so on one seeder: some of them are modelled, each with its fair
share of what the seeder can send.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.readme import with_measured
from benchmarks.simulator.site import Site
from benchmarks.sizes import argument, parse_bytes, parse_rate, readable_bytes, readable_rate
from benchmarks.testbed import TestbedError

__all__ = ["Crowd", "SiteResult", "add_arguments", "run", "simulate_site", "simulate_sites"]

_SAMPLES = 5
_NODES_OF_A_SITE = 10


@dataclass(frozen=True, slots=True)
class SiteResult:
    """`seconds` of the last node against one plain download's; control bytes sent and received, as a share
    of the blob's: of the mean node, of the busiest, and of each if everybody told everybody."""

    nodes: int
    churn: float
    left: int
    seconds: float
    limit_s: float
    wan_ratio: float
    messages_a_node: float
    control: float
    control_most: float
    control_mesh: float
    peers_most: int


@dataclass(frozen=True, slots=True)
class Crowd:
    """Sites on one seeder. `egress_bytes` and `requests` are what it served to all."""

    sites: int
    nodes_of_each: int
    seconds: float
    limit_s: float
    wan_ratio: float
    egress_bytes: float
    requests: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    counts, shares = argument(_counts, "10,1000"), argument(_shares, "0,1")
    sizes, rates = argument(parse_bytes, "128M"), argument(parse_rate, "50M")
    parser.add_argument("--nodes", type=counts, default="10,100,1000", help="site sizes (10,100,1000)")
    parser.add_argument(
        "--churn", type=shares, default="0,1", help="percent of the nodes that leave each minute (0,1)"
    )
    parser.add_argument("--image", type=sizes, default="128M", help="bytes of the blob (128M)")
    parser.add_argument("--wan", type=rates, default="50M", help="a site's WAN, bit/s (50M)")
    parser.add_argument("--sites", type=int, default=1000, help="sites on one seeder, 0 for none (1000)")
    parser.add_argument("--seeder", type=rates, default="10G", help="what the seeder can send, bit/s (10G)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="write the tables there, between its marks")
    parser.add_argument("--picture", type=Path, metavar="SVG", help="draw them")


def _counts(text: str) -> list[int]:
    counts = [int(word) for word in text.split(",")]
    if min(counts) < 1:
        raise ValueError(f"{text!r}: a site has at least one node")
    return counts


def _shares(text: str) -> list[float]:
    shares = [float(word) for word in text.split(",")]
    if not all(0 <= share <= 100 for share in shares):
        raise ValueError(f"{text!r} is not a list of percentages")
    return shares


def run(options: argparse.Namespace) -> int:
    """Exit code 0. Raises TestbedError where the document cannot be written."""
    size, wan, seeder = options.image, options.wan, options.seeder
    results = [
        simulate_site(nodes, size, wan / 8, churn, options.seed)
        for nodes in options.nodes
        for churn in options.churn
    ]
    crowds = []
    if options.sites:
        crowds = [simulate_sites(options.sites, size, wan / 8, seeder / 8, options.seed)]
    said = (
        f"One blob of {readable_bytes(size)}, WAN of each site {readable_rate(wan)}, round trip 30 ms, "
        f"LAN 110 MB/s a node, warm seeder that can send {readable_rate(seeder)}, seed {options.seed}:"
    )
    text = "\n\n".join([said, _site_table(results), *([_crowd_table(crowds)] if crowds else [])])
    print(text)
    if options.json is not None:
        scenario = {"image_bytes": size, "wan_bit_s": wan, "seeder_bit_s": seeder, "seed": options.seed}
        document = {
            "scenario": scenario,
            "site_results": [asdict(one) for one in results],
            "crowds": [asdict(one) for one in crowds],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.picture is not None:
        draw(results, options.picture)
    if options.docs is not None:
        _write_into(options.docs, text)
    return 0


def _write_into(path: Path, text: str) -> None:
    try:
        path.write_text(with_measured(path.read_text(), text))
    except OSError as error:
        raise TestbedError(f"{path} cannot be written: {error.strerror}") from error


def simulate_site(nodes: int, size: int, wan: float, churn: float, seed: int) -> SiteResult:
    """One site; `churn` in percent of its nodes a minute, `wan` in bytes a second."""
    site = Site(nodes, size, seed=seed, wan=wan)
    left = _leave_now_and_then(site, churn) if churn else [0]
    seconds = site.run()
    site.add_metadata()
    control = [site.control_bytes(node) / size for node in site.nodes if node.alive]
    return SiteResult(
        nodes,
        churn,
        left[0],
        seconds,
        size / wan,
        site.wan_ratio,
        site.notices / nodes,
        sum(control) / len(control),
        max(control),
        site.control_bytes_in_mesh / size,
        max(len(node.known) for node in site.nodes),
    )


def _leave_now_and_then(site: Site, churn: float) -> list[int]:
    """Let nodes leave at random moments, and count them in the one element that is returned."""
    rate = len(site.nodes) * churn / 100 / 60
    left = [0]

    def leave() -> None:
        alive = [node for node in site.nodes if node.alive]
        if len(alive) > 1:
            site.leave(site.random.choice(alive))
            left[0] += 1
        site.after(site.random.expovariate(rate), leave)

    site.after(site.random.expovariate(rate), leave)
    return left


def simulate_sites(sites: int, size: int, wan: float, seeder: float, seed: int) -> Crowd:
    """Sites of ten nodes that all begin at once and share the seeder evenly; rates in bytes a second."""
    share = min(wan, seeder / sites)
    samples = min(sites, _SAMPLES)
    seconds = egress = requests = 0.0
    for sample in range(samples):
        site = Site(_NODES_OF_A_SITE, size, seed=seed + sample, wan=share)
        seconds = max(seconds, site.run())
        site.add_metadata()
        egress += site.wan_bytes
        requests += site.requests
    each = egress / samples
    return Crowd(
        sites,
        _NODES_OF_A_SITE,
        seconds,
        size / share,
        each / size,
        each * sites,
        math.ceil(requests / samples * sites),
    )


def _site_table(results: Sequence[SiteResult]) -> str:
    lines = [
        "| nodes | leave a minute | site updated | / one download | WAN ratio | reports a node sent "
        "| control traffic a node | of the busiest | if all told all | most peers told |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r.nodes} | {r.churn:g} % ({r.left}) | {r.seconds:.1f} s | {r.seconds / r.limit_s:.3f} "
        f"| {r.wan_ratio:.4f} | {r.messages_a_node:.0f} | {r.control:.2%} | {r.control_most:.2%} "
        f"| {r.control_mesh:.2%} | {r.peers_most} |"
        for r in results
    ]
    return "\n".join(lines)


def _crowd_table(crowds: Sequence[Crowd]) -> str:
    lines = [
        "| sites on one seeder | nodes of each | all updated | / one download | WAN ratio | seeder sent "
        "| requests a second |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {c.sites} | {c.nodes_of_each} | {c.seconds:.1f} s | {c.seconds / c.limit_s:.3f} "
        f"| {c.wan_ratio:.4f} | {readable_bytes(int(c.egress_bytes))} | {c.requests / c.seconds:.0f} |"
        for c in crowds
    ]
    return "\n".join(lines)


def draw(results: Sequence[SiteResult], path: Path) -> None:
    """Time, WAN use and control traffic over the size of the site, as SVG."""
    import matplotlib as mpl  # takes a second to load
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "p2pd", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(10, 2.8), layout="constrained")
        time, wan, control = figure.subplots(1, 3)
        for churn in sorted({r.churn for r in results}):
            some = [r for r in results if r.churn == churn]
            sizes, name = [r.nodes for r in some], f"{churn:g} % leave a minute"
            time.plot(sizes, [r.seconds / r.limit_s for r in some], "o-", label=name)
            wan.plot(sizes, [r.wan_ratio for r in some], "o-", label=name)
            control.plot(sizes, [100 * r.control for r in some], "o-", label=name)
        some = [r for r in results if r.churn == results[0].churn]
        control.plot(
            [r.nodes for r in some], [100 * r.control_mesh for r in some], "k:", label="if all told all"
        )
        control.set_yscale("log")
        control.legend(fontsize=8)
        for axes, title in (
            (time, "Site time / one download"),
            (wan, "Times that each byte crossed the WAN"),
            (control, "Control traffic a node, % of the blob"),
        ):
            axes.set_xscale("log")
            axes.set_xlabel("nodes")
            axes.set_title(title, fontsize=9)
        figure.savefig(path, format="svg", metadata={"Date": None})
