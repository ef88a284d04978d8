"""containerd: config_path where it is missing, and a hosts.toml for each registry."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.app.runtimes.containerd import CONFIG, HOSTS, install, remove
from p2pd.app.runtimes.draft import Mirror
from p2pd.app.sections import DEFAULT_UPSTREAMS
from p2pd.model.address import Address
from p2pd.model.errors import ConfigError
from p2pd.model.upstream import UpstreamSpec
from tests.support.memory_files import MemoryFiles

HUB, GHCR, *_ = DEFAULT_UPSTREAMS
MIRROR = Mirror(Address("127.0.0.1", 7780), (HUB, GHCR))
URL = "http://127.0.0.1:7780"
CRI_1, CRI_2, CRI_3 = "cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"
READY = f'version = 2\n[plugins."{CRI_2}".registry]\nconfig_path = "{HOSTS}"\n'
HOST = {URL: {"capabilities": ["pull", "resolve"]}}


def installed(before: MemoryFiles, mirror: Mirror = MIRROR) -> MemoryFiles:
    """The tree after installing; on the way: a second time changes nothing, and removing undoes all."""
    after = before.apply(install(before, mirror))
    assert install(after, mirror).changes == ()
    assert after.apply(remove(after)) == before
    assert remove(before).changes == ()
    return after


def tree(files: Mapping[str, str] = {}, *dirs: str) -> MemoryFiles:
    return MemoryFiles({CONFIG: READY, **files}, dirs)


def refusal(files: MemoryFiles, mirror: Mirror = MIRROR) -> str:
    plan = install(files, mirror)
    [line] = plan.refusals
    return line


def hosts(files: MemoryFiles, registry: str, root: str = HOSTS) -> dict[str, Any]:
    return tomllib.loads(files.text(f"{root}/{registry}/hosts.toml"))


def plugin(files: MemoryFiles, name: str, path: str = CONFIG) -> Any:
    return tomllib.loads(files.text(path))["plugins"][name]["registry"]["config_path"]


# hosts.toml


@pytest.mark.parametrize("dirs", [(), (HOSTS,), (f"{HOSTS}/docker.io",)])
def test_each_registry_gets_a_file_that_goes_on_to_the_registry(dirs: tuple[str, ...]) -> None:
    after = installed(tree({}, *dirs))
    assert hosts(after, "docker.io") == {"server": "https://registry-1.docker.io", "host": HOST}
    assert hosts(after, "ghcr.io") == {"server": "https://ghcr.io", "host": HOST}
    assert after.text(CONFIG) == READY


def test_a_ca_that_the_registry_needs_is_for_the_way_round_the_mirror_too() -> None:
    spec = UpstreamSpec("r.example:5000", "https://r.example:5000", "/etc/ca.pem")
    after = installed(tree(), Mirror(MIRROR.listen, (spec,)))
    assert hosts(after, "r.example:5000")["ca"] == "/etc/ca.pem"


def test_nothing_is_restarted_for_hosts_files_alone() -> None:
    assert install(tree(), MIRROR).reload == ()
    assert install(MemoryFiles(), MIRROR).reload == ("systemctl", "restart", "containerd")


THEIRS = """\
server = "https://registry-1.docker.io"

# our cache in Prague
[host."https://cache.example"]
  capabilities = ["pull", "resolve"]
  ca = "/etc/ca.pem"
[host."https://cache.example".header]
  x = "y"
"""


@pytest.mark.parametrize("text", [THEIRS, THEIRS.rstrip("\n"), THEIRS.replace("\n", "\r\n")])
def test_the_mirror_goes_before_the_hosts_of_others(text: str) -> None:
    path = f"{HOSTS}/docker.io/hosts.toml"
    before = tree({path: text})
    after = installed(before)
    assert list(hosts(after, "docker.io")["host"]) == [URL, "https://cache.example"]
    [route] = [route for route in install(before, MIRROR).routes if route.registry == "docker.io"]
    assert route.how == "in front of others' hosts"
    assert [change.path for change in install(before, MIRROR).changes if change.keep] == [path]


@pytest.mark.parametrize("text", ['server = "https://x"', "", "# nothing"])
def test_a_file_without_hosts_gets_one(text: str) -> None:
    after = installed(tree({f"{HOSTS}/docker.io/hosts.toml": text}))
    assert hosts(after, "docker.io")["host"] == HOST


def test_one_that_others_lead_here_already_is_left_to_them() -> None:
    text = f'[host."{URL}"]\ncapabilities = ["pull"]\n'
    assert (
        installed(tree({f"{HOSTS}/docker.io/hosts.toml": text})).text(f"{HOSTS}/docker.io/hosts.toml") == text
    )


@pytest.mark.parametrize(
    "text",
    ['host = {"https://x" = {capabilities = ["pull"]}}\n', 'host."https://x".capabilities = ["pull"]\n'],
)
def test_what_cannot_be_edited_safely_is_refused(text: str) -> None:
    line = refusal(tree({f"{HOSTS}/ghcr.io/hosts.toml": text}))
    assert line.startswith(f"{HOSTS}/ghcr.io/hosts.toml is written by others")


@pytest.mark.parametrize("text", ["server = ", "host = 1"])
def test_a_file_that_is_wrong_already_is_named(text: str) -> None:
    assert refusal(tree({f"{HOSTS}/ghcr.io/hosts.toml": text})).endswith("mend it first")


def test_certificates_that_would_stop_counting_are_refused() -> None:
    line = refusal(tree({f"{HOSTS}/ghcr.io/ca.crt": "PEM"}))
    assert line.startswith(f"{HOSTS}/ghcr.io holds certificates")


def test_the_default_of_others_keeps_its_registries() -> None:
    default = f"{HOSTS}/_default/hosts.toml"
    after = installed(tree({default: '[host."https://cache.example"]\n', f"{HOSTS}/ghcr.io/hosts.toml": ""}))
    assert list(hosts(after, "_default")["host"]) == [URL, "https://cache.example"]
    assert f"{HOSTS}/docker.io/hosts.toml" not in after.files
    assert hosts(after, "ghcr.io")["host"] == HOST


def test_a_default_without_a_file_is_no_default() -> None:
    assert hosts(installed(tree({}, f"{HOSTS}/_default")), "docker.io")["host"] == HOST


def test_a_port_is_looked_for_in_both_spellings() -> None:
    mirror = Mirror(MIRROR.listen, (UpstreamSpec("r.example:5000", "http://r.example:5000"),))
    after = installed(tree({f"{HOSTS}/r.example_5000_/hosts.toml": ""}), mirror)
    assert hosts(after, "r.example_5000_")["host"] == HOST
    assert hosts(installed(tree(), mirror), "r.example:5000")["server"] == "http://r.example:5000"


def test_the_first_of_several_roots_that_has_the_registry_counts() -> None:
    config = READY.replace(HOSTS, f"{HOSTS}:/etc/docker/certs.d")
    files = {CONFIG: config, "/etc/docker/certs.d/ghcr.io/hosts.toml": 'server = "https://ghcr.io"\n'}
    after = installed(MemoryFiles(files))
    assert hosts(after, "ghcr.io", "/etc/docker/certs.d")["host"] == HOST
    assert hosts(after, "docker.io")["host"] == HOST


def test_registries_and_ports_of_before_go() -> None:
    moved = Mirror(Address("::", 9000), (GHCR,))
    after = installed(MemoryFiles())
    after = after.apply(install(after, moved))
    assert after == installed(MemoryFiles(), moved)
    assert list(hosts(after, "ghcr.io")["host"]) == ["http://[::1]:9000"]


def test_what_others_add_to_our_file_stays() -> None:
    after = installed(tree())
    after.files[f"{HOSTS}/ghcr.io/hosts.toml"] += b'[host."https://x"]\n'
    gone = after.apply(remove(after))
    assert hosts(gone, "ghcr.io") == {"host": {"https://x": {}}}
    assert f"{HOSTS}/docker.io/hosts.toml" not in gone.files


# config.toml


def test_without_a_configuration_one_is_made() -> None:
    after = installed(MemoryFiles())
    assert tomllib.loads(after.text(CONFIG)) == {
        "version": 2,
        "plugins": {CRI_2: {"registry": {"config_path": HOSTS}}},
    }


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", CRI_1),
        ("root = '/x'", CRI_1),
        ("version = 1\n[plugins.cri]\nx = 1\n", CRI_1),
        ("version = 2\n", CRI_2),
        (f'version = 2\n[plugins."{CRI_2}"]\nsandbox_image = "x"', CRI_2),
        (f'version = 2\n[plugins."{CRI_2}".registry]\n  config_path = ""\n[debug]\nlevel = "info"\n', CRI_2),
        (f'version = 2\n  [plugins."{CRI_2}".registry]\n    config_path = ""', CRI_2),
        (f"version = 2\n[plugins.'{CRI_2}'.registry]", CRI_2),
        (f'version = 2\n[plugins."{CRI_2}".registry.mirrors]\n[plugins."{CRI_2}".registry.configs]\n', CRI_2),
        ("version = 3\n", CRI_3),
        (f"version = 3\n[plugins.'{CRI_3}'.registry]\n  config_path = ''\n", CRI_3),
        ("version = 4\r\n", CRI_3),
    ],
)
def test_config_path_is_written_where_the_version_wants_it(text: str, name: str) -> None:
    before = MemoryFiles({CONFIG: text})
    after = installed(before)
    assert plugin(after, name) == HOSTS
    assert hosts(after, "docker.io")["host"] == HOST
    assert install(before, MIRROR).reload == ("systemctl", "restart", "containerd")


@pytest.mark.parametrize("version", [None, (2, 2)])
@pytest.mark.parametrize("line", ["", f"config_path = '{HOSTS}:/etc/docker/certs.d'\n"])
def test_a_list_that_containerd_2_takes_as_one_directory_is_replaced(
    version: tuple[int, int] | None, line: str
) -> None:
    before = MemoryFiles({CONFIG: f"version = 3\n[plugins.'{CRI_3}'.registry]\n{line}"})
    plan = install(before, MIRROR, version)
    after = before.apply(plan)
    assert plugin(after, CRI_3) == HOSTS
    assert plan.reload
    assert install(after, MIRROR, version).changes == ()
    assert after.apply(remove(after)) == before


def test_a_list_that_holds_files_of_others_is_refused() -> None:
    config = f"version = 3\n[plugins.'{CRI_3}'.registry]\nconfig_path = '{HOSTS}:/etc/docker/certs.d'\n"
    files = MemoryFiles({CONFIG: config, "/etc/docker/certs.d/r.example/ca.crt": "x"})
    assert "move what is in /etc/docker/certs.d to /etc/containerd/certs.d" in refusal(files)


@pytest.mark.parametrize(("local", "version"), [("true", (2, 2)), ("false", (2, 0)), ("true", None)])
def test_a_list_stays_where_containerd_reads_it(local: str, version: tuple[int, int] | None) -> None:
    config = (
        f"version = 3\n[plugins.'{CRI_3}']\nuse_local_image_pull = {local}\n"
        f"[plugins.'{CRI_3}'.registry]\nconfig_path = '{HOSTS}:/etc/docker/certs.d'\n"
    )
    plan = install(MemoryFiles({CONFIG: config}), MIRROR, version)
    assert not plan.reload
    assert not plan.refusals


def test_the_last_file_that_has_the_plugin_counts() -> None:
    main = f'version = 2\nimports = ["conf.d/*.toml", "/etc/more.toml"]\n[plugins."{CRI_2}"]\nx = 1\n'
    files = {
        CONFIG: main,
        "/etc/containerd/conf.d/10.toml": "version = 2\n",
        "/etc/containerd/conf.d/20.toml": f'version = 2\n[plugins."{CRI_2}"]\ny = 1\n',
        "/etc/containerd/conf.d/30.txt": "not read",
        "/etc/more.toml": "version = 2\n[debug]\n",
    }
    after = installed(MemoryFiles(files))
    assert plugin(after, CRI_2, "/etc/containerd/conf.d/20.toml") == HOSTS
    assert after.text(CONFIG) == main


def test_a_directory_that_an_overruled_file_names_is_kept() -> None:
    files = {
        CONFIG: f'version = 2\nimports = ["b.toml"]\n[plugins."{CRI_2}".registry]\n'
        'config_path = "/srv/hosts"\n',
        "/etc/containerd/b.toml": f'version = 2\nimports = ["config.toml"]\n[plugins."{CRI_2}"]\n',
    }
    after = installed(MemoryFiles(files))
    assert plugin(after, CRI_2, "/etc/containerd/b.toml") == "/srv/hosts"
    assert hosts(after, "docker.io", "/srv/hosts")["host"] == HOST


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('mirrors."docker.io"]\nendpoint = ["https://x"]', "registry.mirrors (docker.io)"),
        ('configs."r.example".tls]\nca_file = "/x"', "registry.configs with tls (r.example)"),
    ],
)
def test_older_tables_beside_config_path_are_refused(table: str, said: str) -> None:
    for start in ("version = 2\n", READY):
        line = refusal(MemoryFiles({CONFIG: f'{start}[plugins."{CRI_2}".registry.{table}\n'}))
        assert said in line
        assert HOSTS in line


def test_logins_beside_config_path_are_fine() -> None:
    config = f'version = 2\n[plugins."{CRI_2}".registry.configs."r.example".auth]\nusername = "u"\n'
    installed(MemoryFiles({CONFIG: config}))


@pytest.mark.parametrize(
    "text",
    [
        f'version = 2\nplugins = {{"{CRI_2}" = {{registry = {{}}}}}}\n',
        f'version = 2\n[plugins]\n"{CRI_2}".registry.config_path = ""\n',
        f'version = 2\nx = """\n[plugins."{CRI_2}".registry]\n"""\n',
    ],
)
def test_a_configuration_written_in_another_way_is_refused(text: str) -> None:
    line = refusal(MemoryFiles({CONFIG: text}))
    assert line.startswith(f"{CONFIG} is written in a way")
    assert f'config_path = "{HOSTS}"' in line


def test_a_disabled_cri_is_told() -> None:
    plan = install(MemoryFiles({CONFIG: 'disabled_plugins = ["cri"]\n'}), MIRROR)
    assert "disables the CRI plugin" in plan.notes[0]


def test_a_configuration_that_is_no_toml_is_named() -> None:
    for call in (lambda files: install(files, MIRROR), remove):
        with pytest.raises(ConfigError, match=f"^{CONFIG} is not valid TOML"):
            call(MemoryFiles({CONFIG: "= 1"}))


PIECES = st.sampled_from(
    [
        "version = 2\n",
        "# words\n",
        "\n",
        f'[plugins."{CRI_2}"]\n',
        f'[plugins."{CRI_2}".registry]\n',
        f"  [plugins.'{CRI_2}'.registry] # here\n",
        'config_path = ""\n',
        '   config_path = "/srv/hosts"\n',
        f'config_path = "{HOSTS}:/b"\n',
        f'[plugins."{CRI_2}".registry.configs."a".auth]\n',
        "[debug]\n",
        "x = [\n1,\n2]\n",
        'server = "https://x"\n',
        '[host."https://x"]\n',
        '[host."https://y".header]\n',
        '  capabilities = ["pull"]\n',
        "[header]\n",
        "no newline at the end",
    ]
)
TEXTS = st.lists(PIECES, max_size=6, unique=True).map("".join)


@given(TEXTS, st.none() | TEXTS, st.none() | TEXTS)
def test_any_tree_is_refused_or_goes_round(config: str, hub: str | None, default: str | None) -> None:
    files = {CONFIG: config}
    files |= {f"{HOSTS}/docker.io/hosts.toml": hub} if hub is not None else {}
    files |= {f"{HOSTS}/_default/hosts.toml": default} if default is not None else {}
    before = MemoryFiles(files)
    try:
        plan = install(before, MIRROR)
    except ConfigError:
        return
    if not plan.refusals:
        installed(before)
