"""Docker Engine's daemon.json."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.app.runtimes.docker import CONFIG, install, remove
from p2pd.app.runtimes.draft import Mirror
from p2pd.app.sections import DEFAULT_UPSTREAMS
from p2pd.model.address import Address
from p2pd.model.errors import ConfigError
from tests.support.memory_files import MemoryFiles

MIRROR = Mirror(Address("127.0.0.1", 7780), DEFAULT_UPSTREAMS)
URL = "http://127.0.0.1:7780"


def installed(text: str | None) -> MemoryFiles:
    """The tree after installing; on the way: a second time changes nothing, and removing undoes all."""
    before = MemoryFiles({} if text is None else {CONFIG: text}, ("/etc/docker",))
    after = before.apply(install(before, MIRROR))
    again = install(after, MIRROR)
    assert (again.changes, again.reload) == ((), ())
    assert after.apply(remove(after, MIRROR)) == before
    assert remove(before, MIRROR).changes == ()
    return after


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, f'{{\n\t"registry-mirrors": ["{URL}"]\n}}\n'),
        ("", f'{{"registry-mirrors":["{URL}"]}}'),
        ("{}\n", f'{{\n  "registry-mirrors": ["{URL}"]\n}}\n'),
        ('{"debug": true}', f'{{\n  "registry-mirrors": ["{URL}"],"debug": true}}'),
        ('{"registry-mirrors": []}', f'{{"registry-mirrors": [ "{URL}" ]}}'),
        (
            '{\n  "registry-mirrors" : ["https://m"],\n  "x": {"registry-mirrors": 1}\n}\n',
            f'{{\n  "registry-mirrors" : ["{URL}", "https://m"],\n  "x": {{"registry-mirrors": 1}}\n}}\n',
        ),
    ],
)
def test_the_mirror_comes_first_and_all_else_stays(text: str | None, expected: str) -> None:
    assert installed(text).text(CONFIG) == expected


OBJECTS = st.dictionaries(
    st.text(max_size=3) | st.just("registry-mirrors2"),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=4), st.lists, max_leaves=4),
    max_size=3,
)
INDENTS = st.sampled_from([None, 0, 2, "\t"])


@given(OBJECTS, st.none() | st.lists(st.text(max_size=4).filter(lambda url: url != URL), max_size=2), INDENTS)
def test_any_object_goes_round(
    value: dict[str, object], mirrors: list[str] | None, indent: int | str | None
) -> None:
    if mirrors is not None:
        value["registry-mirrors"] = mirrors
    after = json.loads(installed(json.dumps(value, indent=indent)).text(CONFIG))
    assert after.pop("registry-mirrors") == [URL, *(mirrors or [])]
    value.pop("registry-mirrors", None)
    assert after == value


def test_one_that_is_there_already_is_left_alone_and_taken_out_on_request() -> None:
    by_hand = MemoryFiles({CONFIG: f'{{"registry-mirrors": ["https://m", "{URL}/"]}}'})
    assert install(by_hand, MIRROR).changes == ()
    assert by_hand.apply(remove(by_hand, MIRROR)).text(CONFIG) == '{"registry-mirrors": ["https://m"]}'


def test_docker_is_reloaded_not_restarted_and_only_docker_hub_is_promised() -> None:
    plan = install(MemoryFiles(), MIRROR)
    assert plan.reload == ("systemctl", "reload", "docker")
    assert [route.registry for route in plan.routes] == ["docker.io"]
    assert plan.notes == [
        "Docker uses mirrors for docker.io alone; ghcr.io, quay.io, registry.k8s.io go to their registries"
    ]


def test_what_would_keep_docker_from_starting_is_refused() -> None:
    path = "/etc/systemd/system/docker.service.d/mirror.conf"
    files = MemoryFiles({path: "[Service]\nExecStart=\nExecStart=dockerd --registry-mirror=https://m\n"})
    [line] = install(files, MIRROR).refusals
    assert line.startswith(f"{path} passes --registry-mirror")
    assert f"--registry-mirror={URL}" in line


def test_another_registry_by_default_is_refused() -> None:
    [line] = install(MemoryFiles(), Mirror(MIRROR.listen, DEFAULT_UPSTREAMS, "ghcr.io")).refusals
    assert "mirror.default_registry is ghcr.io" in line
    [line] = install(MemoryFiles(), Mirror(MIRROR.listen, DEFAULT_UPSTREAMS[1:])).refusals
    assert "[upstreams] has no docker.io" in line


@pytest.mark.parametrize("text", ["{", "[]", '{"registry-mirrors": "x"}', "[" * 100_000, "{} {}"])
def test_what_is_wrong_is_named(text: str) -> None:
    for plan in (install, remove):
        with pytest.raises(ConfigError, match=f"^{CONFIG}.*mend it first$"):
            plan(MemoryFiles({CONFIG: text}), MIRROR)
