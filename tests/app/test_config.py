"""Configuration: what is read, and how wrong input is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.app.config import NodeConfig, load, parse
from p2pd.app.sections import DEFAULT_UPSTREAMS, LogSection
from p2pd.app.settings import FILE_LIMIT
from p2pd.model.address import Address
from p2pd.model.errors import ConfigError
from p2pd.model.upstream import UpstreamSpec

FULL = b"""\
[node]
site = "shop-7"
state_dir = "/srv/p2pd"

[mirror]
listen = "[::1]:7000"
default_registry = "index.docker.io"

[lan]
control = "10.0.0.1:7781"
swarm_port = 0
multicast = false
peers = ["10.0.0.2:7781", "[fd00::3]:7781", "node4.lan:7781"]
interfaces = ["eth0"]

[wan]
seeders = ["https://seeder.example/", "http://10.9.0.1:8080/p2p"]
docker_config = "/etc/p2pd/docker.json"
direct = false

[upstreams."docker.io"]
url = "https://registry-1.docker.io"

[upstreams."Registry.local:5000"]
url = "http://registry.local:5000"
alias = "local"
ca_file = "/etc/ssl/local.pem"

[log]
level = "debug"
format = "json"
"""


def mistake(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(ConfigError) as caught:
        parse(data, NodeConfig, "p2pd.toml")
    line = str(caught.value)
    assert line.isprintable()
    return line


def test_empty_file_gives_the_defaults() -> None:
    config = parse(b"", NodeConfig)
    assert config == NodeConfig()
    assert config.node.site == "default"
    assert config.node.state_dir == "/var/lib/p2pd"
    assert config.mirror.listen == Address("127.0.0.1", 7780)
    assert config.mirror.default_registry == "docker.io"
    assert config.lan.control == Address("0.0.0.0", 7781)
    assert (config.lan.swarm_port, config.lan.multicast) == (7782, True)
    assert (config.lan.peers, config.lan.interfaces) == ((), ())
    assert (config.wan.seeders, config.wan.docker_config, config.wan.direct) == ((), "", True)
    assert [spec.registry for spec in config.upstreams] == [
        "docker.io",
        "ghcr.io",
        "quay.io",
        "registry.k8s.io",
    ]
    assert config.upstreams == DEFAULT_UPSTREAMS
    assert config.log == LogSection("info", "auto")
    assert config.warnings() == []


def test_every_key_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p2pd.toml"
    path.write_bytes(FULL)
    config = load(path, NodeConfig)
    assert config.node.site == "shop-7"
    assert config.mirror.listen == Address("::1", 7000)
    assert config.mirror.default_registry == "docker.io"
    assert [str(peer) for peer in config.lan.peers] == ["10.0.0.2:7781", "[fd00::3]:7781", "node4.lan:7781"]
    assert config.wan.seeders == ("https://seeder.example", "http://10.9.0.1:8080/p2p")
    assert config.upstreams == (
        UpstreamSpec("docker.io", "https://registry-1.docker.io"),
        UpstreamSpec("registry.local:5000", "http://registry.local:5000", "/etc/ssl/local.pem", "local"),
    )
    assert not config.wan.direct
    assert config.log == LogSection("debug", "json")


def test_an_empty_upstreams_table_means_none() -> None:
    assert parse(b"[upstreams]", NodeConfig).upstreams == ()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[nod]\n", "line 1: nod: unknown section; did you mean node?"),
        (
            "\n[x]",
            "line 2: x: unknown section; "
            "known are node, mirror, lan, wan, store, runtime, upstreams, admin, metrics, log",
        ),
        ("[mirror]\n\nlistn = 1", "line 3: mirror.listn: unknown key; did you mean listen?"),
        (
            "mirror.listen = 1",
            'line 1: mirror.listen: 1 is not an address like "127.0.0.1:7780" or "[::1]:7780"',
        ),
        ("node = 3", "line 1: node: 3 is not a table"),
        ("upstreams = [1]", "line 1: upstreams: [1] is not a table"),
        ("[lan]\nmulticast = 1", "line 2: lan.multicast: 1 is neither true nor false"),
        ("[lan]\nswarm_port = 65536", "line 2: lan.swarm_port: 65536 is not a whole number from 0 to 65535"),
        ("[lan]\nswarm_port = true", "line 2: lan.swarm_port: true is not a whole number from 0 to 65535"),
        ('[lan]\ncontrol = ":::99999"', "line 2: lan.control: port 99999 is over 65535"),
        ('[lan]\npeers = "a:1"', "line 2: lan.peers: 'a:1' is not a list in square brackets"),
        ("[log]\nlevel = 3", "line 2: log.level: 3 is not one of debug, info, warning, error"),
        (
            '[wan]\nseeders = ["seeder"]',
            "line 2: wan.seeders: 'seeder' is not a URL like \"https://registry.example:5000\"",
        ),
        (
            '[wan]\nseeders = ["https://u:p@s"]',
            "line 2: wan.seeders: a URL must not carry a user or password; put those in docker_config",
        ),
        ('[node]\nstate_dir = "var"', "line 2: node.state_dir: 'var' is not an absolute path"),
        (
            '[upstreams."docker.io"]\nalias = "a"',
            'line 1: upstreams."docker.io": url is missing; write for instance url = "https://docker.io"',
        ),
        (
            '[upstreams."docker.io"]\nurl = "ftp://x"',
            'line 2: upstreams."docker.io".url: \'ftp://x\' is not a URL like "https://registry.example:5000"',
        ),
        (
            '[upstreams."a b"]\nurl = "http://x"',
            "line 1: upstreams.\"a b\": registry 'a b' is not a host name with an optional port",
        ),
        ("[upstreams]\na = 1", "line 2: upstreams.a: 1 is not a table"),
        ("x = = 1", "not valid TOML: Invalid value (at line 1, column 5)"),
    ],
)
def test_mistakes_are_told_in_one_line(text: str, line: str) -> None:
    assert mistake(text) in (f"p2pd.toml, {line}", f"p2pd.toml: {line}")


def test_two_upstreams_must_not_share_a_name() -> None:
    one = '[upstreams.a]\nurl = "http://a"\nalias = "x"\n'
    assert mistake(one + '[upstreams.b]\nurl = "http://b"\nalias = "x"') == (
        "p2pd.toml, line 6: upstreams.b.alias: x is already the name or alias of another upstream"
    )
    assert "already" in mistake(one + '[upstreams.x]\nurl = "http://b"')
    assert "already" in mistake(
        '[upstreams."docker.io"]\nurl = "http://a"\n[upstreams."index.docker.io"]\nurl = "http://b"'
    )


@pytest.mark.parametrize("alias", ["A", "a/b", "-a", "a..b", "é", "a" * 129])
def test_alias_must_be_a_path_component(alias: str) -> None:
    assert "alias" in mistake(f'[upstreams.a]\nurl = "http://a"\nalias = "{alias}"')


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, why in [
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory"),
        (Path("a\0b"), "null byte"),
    ]:
        with pytest.raises(ConfigError, match=why):
            load(path, NodeConfig)
    with pytest.raises(ConfigError, match="larger than"):
        load(Path("/dev/zero"), NodeConfig)


def test_bytes_that_are_no_toml() -> None:
    assert mistake(b"[node]\n\xff") == "p2pd.toml, line 2: not UTF-8 text"
    assert "nested too deeply" in mistake(b"a = " + b"[" * 50_000)
    assert "not valid TOML" in mistake(b"a = " + b"9" * 5_000)
    assert "larger" in mistake(b"#" * (FILE_LIMIT + 1))
    assert parse(b"\xef\xbb\xbf[node]\r\nsite = 'a'\r\n", NodeConfig).node.site == "a"


def test_what_may_be_a_mistake_is_warned_about() -> None:
    config = parse(b'[mirror]\nlisten = "0.0.0.0:7780"\n[wan]\ndirect = false', NodeConfig)
    assert [line.split()[0] for line in config.warnings()] == ["mirror.listen", "wan.seeders"]


SCALARS = st.one_of(
    st.text(max_size=8), st.integers(), st.floats(), st.booleans(), st.dates(), st.datetimes()
)
KEYS = st.sampled_from(
    ["node", "site", "mirror", "listen", "lan", "peers", "upstreams", "url", "log", "wan", "x.y"]
)


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(name)} = {toml(each)}" for name, each in value.items()) + "}"
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


TREES = st.dictionaries(
    KEYS | st.text(max_size=5),
    st.recursive(
        SCALARS, lambda sub: st.lists(sub, max_size=3) | st.dictionaries(KEYS, sub, max_size=3), max_leaves=9
    ),
    max_size=4,
)


@given(TREES)
def test_any_tree_is_read_or_refused(tree: dict[str, object]) -> None:
    survives("\n".join(f"{toml(name)} = {toml(value)}" for name, value in tree.items()).encode())


@given(st.integers(0, len(FULL)), st.binary(max_size=4), st.integers(0, 4))
def test_any_damage_is_read_or_refused(at: int, new: bytes, gone: int) -> None:
    survives(FULL[:at] + new + FULL[at + gone :])


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    survives(data)


def survives(data: bytes) -> None:
    try:
        parse(data, NodeConfig, "p2pd.toml")
    except ConfigError as error:
        text = str(error)
    else:
        return
    assert text.startswith("p2pd.toml")
    assert "\n" not in text
    assert len(text) < 1000
