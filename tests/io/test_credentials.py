import base64
import contextlib
import json
import os
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from p2pd.io.credentials import DockerConfig, Login, _logins


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_logins_by_every_spelling_of_a_registry(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {
                "auths": {
                    "https://index.docker.io/v1/": {"auth": basic("hub:pass:word")},
                    "reg.test:5000": {"auth": basic("reg:x")},
                    "https://ghcr.io/v2/": {"username": "g", "password": "h"},
                    "quay.io": {"auth": "", "identitytoken": "t"},
                    "broken.test": {"auth": "%%%"},
                    "empty.test": {},
                    "": {"auth": basic("a:b")},
                }
            }
        )
    )
    config = DockerConfig(path)
    with structlog.testing.capture_logs() as logs:
        assert await config.login("docker.io") == Login("hub", "pass:word")
    assert {entry["event"] for entry in logs} == {"credentials.entry_left_out"}
    assert await config.login("elsewhere", "reg.test:5000") == Login("reg", "x")
    assert await config.login("ghcr.io") == Login("g", "h")
    assert await config.login("quay.io") == Login("", "", "t")
    for host in ("broken.test", "empty.test", "reg.test"):
        assert await config.login(host) is None
    assert "pass:word" not in repr(await config.login("docker.io"))


async def test_a_change_of_the_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    config = DockerConfig(path)
    assert await config.login("reg.test") is None
    path.write_text(json.dumps({"auths": {"reg.test": {"auth": basic("a:b")}}}))
    assert await config.login("reg.test") == Login("a", "b")
    path.write_text(json.dumps({"auths": {"reg.test": {"auth": basic("c:d")}}}))
    os.utime(path, (1, 1))
    assert await config.login("reg.test") == Login("c", "d")
    path.unlink()
    assert await config.login("reg.test") is None


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"auths": []}', b"\xff", b" " * 2_000_000, b"[" * 100_000]
)
async def test_a_broken_file_is_one_warning(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    config = DockerConfig(path)
    with structlog.testing.capture_logs() as logs:
        assert await config.login("reg.test") is None
        assert await config.login("reg.test") is None
    assert [entry["event"] for entry in logs] == ["credentials.unusable"]


async def test_no_file_at_all() -> None:
    assert await DockerConfig(None).login("reg.test") is None


ANY_JSON = st.recursive(
    st.none() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(ANY_JSON)
def test_any_json_is_read_or_refused(document: object) -> None:
    for text in (document, {"auths": document}, {"auths": {"a": document}}):
        with contextlib.suppress(ValueError), structlog.testing.capture_logs():
            assert all(isinstance(login, Login) for login in _logins(json.dumps(text).encode()).values())
