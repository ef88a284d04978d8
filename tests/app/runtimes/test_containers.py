"""podman, CRI-O and skopeo: a drop-in of registries.conf."""

from __future__ import annotations

import tomllib

import pytest

from p2pd.app.runtimes.containers import FILE, install, remove
from p2pd.app.runtimes.draft import Mirror
from p2pd.app.sections import DEFAULT_UPSTREAMS
from p2pd.model.address import Address
from p2pd.model.errors import ConfigError
from p2pd.model.upstream import UpstreamSpec
from tests.support.memory_files import MemoryFiles

HUB, GHCR, *_ = DEFAULT_UPSTREAMS
MIRROR = Mirror(Address("127.0.0.1", 7780), (HUB, GHCR))
MAIN = "/etc/containers/registries.conf"


def installed(before: MemoryFiles, mirror: Mirror = MIRROR) -> MemoryFiles:
    """The tree after installing; on the way: a second time changes nothing, and removing undoes all."""
    after = before.apply(install(before, mirror, "podman"))
    assert install(after, mirror, "podman").changes == ()
    assert after.apply(remove(after, "podman")) == before
    assert remove(before, "podman").changes == ()
    return after


def registries(files: MemoryFiles) -> list[dict[str, object]]:
    found: list[dict[str, object]] = tomllib.loads(files.text(FILE))["registry"]
    return found


@pytest.mark.parametrize("dirs", [(), ("/etc/containers",), ("/etc/containers/registries.conf.d",)])
def test_each_registry_has_the_mirror_and_then_itself(dirs: tuple[str, ...]) -> None:
    assert registries(installed(MemoryFiles(dirs=dirs))) == [
        {
            "prefix": name,
            "location": name,
            "mirror": [{"location": f"127.0.0.1:7780/{name}", "insecure": True}],
        }
        for name in ("docker.io", "ghcr.io")
    ]


def test_a_registry_with_a_port_comes_by_its_alias_and_keeps_plain_http() -> None:
    specs = (
        UpstreamSpec("registry.example:5000", "http://registry.example:5000", alias="example"),
        UpstreamSpec("hub.corp", "https://cache.corp:8443"),
        UpstreamSpec("bare.example:5000", "https://bare.example:5000"),
    )
    mirror = Mirror(Address("0.0.0.0", 80), specs)
    plan = install(MemoryFiles(), mirror, "podman")
    assert plan.notes[0].startswith("bare.example:5000 is left out")
    assert [route.registry for route in plan.routes] == ["registry.example:5000", "hub.corp"]
    first, second = registries(installed(MemoryFiles(), mirror))
    assert first == {
        "prefix": "registry.example:5000",
        "location": "registry.example:5000",
        "insecure": True,
        "mirror": [{"location": "127.0.0.1:80/example", "insecure": True}],
    }
    assert second["location"] == "cache.corp:8443"


@pytest.mark.parametrize("path", [MAIN, "/etc/containers/registries.conf.d/000-corp.conf"])
@pytest.mark.parametrize("key", ["prefix", "location"])
def test_a_registry_that_others_configure_is_refused(path: str, key: str) -> None:
    files = MemoryFiles({path: f'[[registry]]\n{key} = "ghcr.io"\nblocked = true\n'})
    plan = install(files, MIRROR, "podman")
    [line] = plan.refusals
    assert line.startswith(f"{path} configures ghcr.io already")
    assert '"127.0.0.1:7780/ghcr.io"' in line


def test_one_that_others_lead_here_already_is_left_to_them() -> None:
    theirs = '[[registry]]\nlocation = "ghcr.io"\n[[registry.mirror]]\nlocation = "127.0.0.1:7780/ghcr.io"\n'
    files = MemoryFiles({MAIN: theirs})
    assert [(route.registry, route.how) for route in install(files, MIRROR, "podman").routes] == [
        ("docker.io", "own file"),
        ("ghcr.io", "written by others"),
    ]
    assert len(registries(installed(files))) == 1


def test_what_others_wrote_into_the_file_stays() -> None:
    theirs = "# of the operator\nunqualified-search-registries = ['docker.io']"
    after = installed(MemoryFiles({FILE: theirs}))
    assert after.text(FILE).startswith(theirs)
    ours = install(MemoryFiles(), MIRROR, "podman")
    mixed = MemoryFiles().apply(ours)
    mixed.files[FILE] += b"# more\n"
    assert mixed.apply(remove(mixed, "podman")).text(FILE) == "# more\n"


def test_only_crio_has_to_be_told() -> None:
    assert install(MemoryFiles(), MIRROR, "podman").reload == ()
    assert install(MemoryFiles(), MIRROR, "crio").reload == ("systemctl", "reload", "crio")


def test_another_port_replaces_the_old_block() -> None:
    moved = Mirror(Address("127.0.0.1", 9000), (HUB,))
    after = installed(MemoryFiles())
    after = after.apply(install(after, moved, "podman"))
    assert after == installed(MemoryFiles(), moved)


def test_a_file_that_is_no_toml_is_named() -> None:
    with pytest.raises(ConfigError, match=f"^{MAIN} is not valid TOML"):
        install(MemoryFiles({MAIN: "= 1"}), MIRROR, "podman")
