"""Discovery without a network; with one see tests/system/test_discovery.py."""

from __future__ import annotations

import structlog
import trio

from p2pd.io.mdns import Advertisement, LocalAddress, choose_addresses, run_mdns

ME = Advertisement("a" * 16, "shop", 7781, 6881)


def test_addresses_that_lead_to_the_site() -> None:
    lan = LocalAddress("eth0", 2, "192.168.1.5")
    wifi = LocalAddress("wlan0", 3, "192.168.2.5")
    others = [
        LocalAddress("lo", 1, "127.0.0.1"),
        LocalAddress("docker0", 4, "172.17.0.1"),
        LocalAddress("cni0", 5, "10.42.0.1"),
        LocalAddress("dummy0", 6, "127.8.0.1"),
    ]
    assert choose_addresses([wifi, *others, lan], ()) == (lan, wifi)
    assert choose_addresses([wifi, *others, lan], ("docker0",)) == (others[1],)
    assert choose_addresses([wifi, lan], ("eth1",)) == ()


async def test_without_an_interface_it_says_so_once_and_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:

            async def discover(task_status: trio.TaskStatus[None]) -> None:
                await run_mdns(ME, lambda host, port: None, interfaces=("nowhere0",), task_status=task_status)

            await nursery.start(discover)
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
    assert [(entry["log_level"], entry["error"]) for entry in logs] == [
        ("warning", "no network interface has a usable IPv4 address")
    ]
