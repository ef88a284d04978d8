"""Dashboard and rules against the real thing: Debian's Prometheus scrapes a running node and seeder."""

from __future__ import annotations

import json
import random
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from benchmarks.testbed.registry import FaultRegistry, status
from tests.support.daemon import node_config, open_daemon, open_seeder

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's prometheus is not installed"),
]

ROOT = Path(__file__).parents[2]
RULES = ROOT / "packaging" / "prometheus" / "p2pd.rules.yml"
DASHBOARD = ROOT / "packaging" / "grafana" / "p2pd.json"
BLOB = random.Random(11).randbytes(3_000_000)

METRIC = re.compile(r"(?<![\w:\"])((?:site:)?(?:p2pd|process)_[\w:]+|up)(?=[\[{) ]|$)")


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid_and_say_what_they_should(tmp_path: Path) -> None:
    promtool("check", "rules", str(RULES))
    cases = (Path(__file__).parent / "p2pd.rules.test.yml").read_text()
    (tmp_path / "cases.yml").write_text(cases.replace("[RULES]", f"['{RULES}']"))
    promtool("test", "rules", str(tmp_path / "cases.yml"))


def test_the_documented_configuration_is_one_that_prometheus_takes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    [text] = re.findall(r"(?ms)^```yaml\n# prometheus\.yml\n(.*?)^```$", page)
    assert "/etc/prometheus/p2pd.rules.yml" in text
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace("/etc/prometheus/p2pd.rules.yml", str(RULES)))
    promtool("check", "config", str(config))


def dashboard_expressions() -> Iterator[str]:
    """As Grafana would send them."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"].replace("$__rate_interval", "1m").replace("$site", ".*")


async def ask(client: httpx.AsyncClient, path: str, **parameters: str) -> Any:
    answer = (await client.get(path, params=parameters)).json()
    assert answer["status"] == "success", (answer, parameters)
    return answer["data"]


@asynccontextmanager
async def prometheus(directory: Path, targets: dict[str, str]) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A Prometheus that scrapes host:port of each job every half second, with our rules."""
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [target], "labels": {"site": "test"}}]}
        for job, target in targets.items()
    ]
    pace = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config = directory / "prometheus.yml"
    config.write_text(json.dumps({"global": pace, "rule_files": [str(RULES)], "scrape_configs": jobs}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}"]
    with (directory / "prometheus.log").open("wb") as log:
        process = await trio.lowlevel.open_process([*command, f"--web.listen-address={address}"], stderr=log)
        try:
            async with httpx.AsyncClient(base_url=f"http://{address}", timeout=10) as client:
                await eventually(lambda: is_ready(client))
                yield client
        finally:
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask another process, which cannot tell us, until it is so."""
    with trio.fail_after(30):
        while True:
            if await condition():
                return
            await trio.sleep(0.1)


async def is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/-/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def test_every_metric_of_dashboard_and_rules_exists(tmp_path: Path) -> None:
    registry = FaultRegistry()
    digest, other = registry.add_blob(BLOB), registry.add_blob(BLOB[::-1])
    async with trio.open_nursery() as nursery:
        await nursery.start(registry.run)
        async with open_seeder(tmp_path / "seeder", registry.url) as url:
            config = node_config(tmp_path / "node", registry.url, seeders=[url], direct=False)
            async with open_daemon(config) as node:
                assert (await node.client.get(f"/v2/app/blobs/{digest}")).content == BLOB
                registry.fault(f"/v2/app/blobs/{other}", status(500))
                assert (await node.client.get(f"/v2/app/blobs/{other}")).status_code == 503
                mirror = f"127.0.0.1:{node.client.base_url.port}"
                targets = {"p2pd": mirror, "p2pd-seeder": url.removeprefix("http://")}
                async with prometheus(tmp_path, targets) as client:
                    await check_all(client)
        nursery.cancel_scope.cancel()


async def check_all(client: httpx.AsyncClient) -> None:
    await eventually(lambda: is_scraped(client))
    names = set(await ask(client, "/api/v1/label/__name__/values"))
    rules = [rule for group in await groups(client) for rule in group["rules"]]
    assert len(rules) > 15
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    expressions = [*dashboard_expressions(), *(rule["query"] for rule in rules)]
    used = {name for expression in expressions for name in METRIC.findall(expression)}
    assert {"p2pd_wan_bytes_total", "p2pd_seeder_store_bytes", "p2pd_peers"} <= used
    assert used - names == set()
    for expression in expressions:
        await ask(client, "/api/v1/query", query=expression)
    (served,) = (await ask(client, "/api/v1/query", query="p2pd_served_bytes_total"))["result"]
    assert int(served["value"][1]) == len(BLOB)


async def groups(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await ask(client, "/api/v1/rules"))["groups"]
    return found


async def is_scraped(client: httpx.AsyncClient) -> bool:
    """Both targets were scraped twice (a rate needs two), and each rule was evaluated after that."""
    seen = (await ask(client, "/api/v1/query", query="count_over_time(p2pd_build_info[1m])"))["result"]
    seen += (await ask(client, "/api/v1/query", query="count_over_time(p2pd_seeder_build_info[1m])"))[
        "result"
    ]
    recorded = (await ask(client, "/api/v1/query", query="site:p2pd_served_bytes:rate5m"))["result"]
    return len(seen) == 2 and min(int(each["value"][1]) for each in seen) >= 2 and bool(recorded)
