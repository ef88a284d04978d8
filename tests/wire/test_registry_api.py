"""URLs of the registry API, as containerd, podman and Docker write them."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.model.errors import InvalidReference
from p2pd.model.reference import Digest, Repository, Tag
from p2pd.wire.registry_api import (
    ApiRequest,
    BaseCheck,
    BlobRequest,
    ManifestRequest,
    ReferrersRequest,
    TagsRequest,
    Upstreams,
    parse_request,
)
from p2pd.wire.registry_errors import ApiError

HEX = "ab" * 32
DIGEST = Digest(HEX)
UPSTREAMS = Upstreams(
    {
        "docker.io": "docker.io",
        "ghcr.io": "ghcr.io",
        "registry.corp:5000": "registry.corp:5000",
        "corp": "registry.corp:5000",
        "localhost": "localhost",
    },
    default="docker.io",
)
ALPINE = Repository("docker.io", "library/alpine")
CORP = Repository("registry.corp:5000", "team/app")


def parse(path: str, query: str = "") -> ApiRequest:
    return parse_request(path, query, UPSTREAMS)


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/v2/", "", BaseCheck()),
        ("/v2", "ns=docker.io", BaseCheck()),
        # containerd
        ("/v2/library/alpine/manifests/3.19", "ns=docker.io", ManifestRequest(ALPINE, Tag("3.19"))),
        ("/v2/team/app/manifests/v1", "ns=registry.corp%3A5000", ManifestRequest(CORP, Tag("v1"))),
        (f"/v2/team/app/blobs/sha256:{HEX}", "ns=registry.corp:5000", BlobRequest(CORP, DIGEST)),
        (
            f"/v2/team/app/manifests/sha256:{HEX}",
            "ns=GHCR.io",
            ManifestRequest(Repository("ghcr.io", "team/app"), DIGEST),
        ),
        ("/v2/alpine/manifests/1", "ns=index.docker.io", ManifestRequest(ALPINE, Tag("1"))),
        # podman, skopeo, CRI-O
        (f"/v2/ghcr.io/a/b/blobs/sha256:{HEX}", "", BlobRequest(Repository("ghcr.io", "a/b"), DIGEST)),
        ("/v2/corp/team/app/manifests/v1", "", ManifestRequest(CORP, Tag("v1"))),
        ("/v2/registry.corp:5000/team/app/manifests/v1", "", ManifestRequest(CORP, Tag("v1"))),
        ("/v2/localhost/a/manifests/v1", "", ManifestRequest(Repository("localhost", "a"), Tag("v1"))),
        # Docker Engine
        ("/v2/library/alpine/manifests/latest", "", ManifestRequest(ALPINE, Tag("latest"))),
        ("/v2/alpine/manifests/latest", "", ManifestRequest(ALPINE, Tag("latest"))),
        # ns wins over the prefix, and the path is then the bare repository
        (
            "/v2/ghcr.io/app/manifests/v1",
            "ns=docker.io",
            ManifestRequest(Repository("docker.io", "ghcr.io/app"), Tag("v1")),
        ),
        (
            "/v2/corp/manifests/v1",
            "",
            ManifestRequest(Repository("docker.io", "library/corp"), Tag("v1")),
        ),
        # escapes, and names that contain the API's own words
        (f"/v2/library/alpine/blobs/sha256%3A{HEX}", "", BlobRequest(ALPINE, DIGEST)),
        (
            "/v2/a/manifests/b/tags/list/manifests/v1",
            "",
            ManifestRequest(Repository("docker.io", "a/manifests/b/tags/list"), Tag("v1")),
        ),
        ("/v2/a/blobs/tags/list", "", TagsRequest(Repository("docker.io", "a/blobs"), None, None)),
        ("/v2/alpine/tags/list", "n=10&last=3.1", TagsRequest(ALPINE, 10, Tag("3.1"))),
        (f"/v2/alpine/referrers/sha256:{HEX}", "", ReferrersRequest(ALPINE, DIGEST, None)),
        (
            f"/v2/alpine/referrers/sha256:{HEX}",
            "artifactType=application%2Fvnd.x%2Bjson",
            ReferrersRequest(ALPINE, DIGEST, "application/vnd.x+json"),
        ),
    ],
)
def test_accepted(path: str, query: str, expected: ApiRequest) -> None:
    assert parse(path, query) == expected


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("/", "", 404, "UNSUPPORTED"),
        ("/v1/search", "", 404, "UNSUPPORTED"),
        ("/v2/_catalog", "", 404, "UNSUPPORTED"),
        ("/v2/manifests/latest", "", 404, "UNSUPPORTED"),
        ("/v2/a/blobs/uploads/", "", 404, "UNSUPPORTED"),
        ("/v2/a/manifests/v1", "ns=evil.example", 404, "NAME_UNKNOWN"),
        ("/v2/a/manifests/v1", "ns=169.254.169.254", 404, "NAME_UNKNOWN"),
        ("/v2/a/manifests/v1", "ns=docker.io%40evil.example", 404, "NAME_UNKNOWN"),
        ("/v2/a/manifests/v1", "ns=docker.io/../x", 404, "NAME_UNKNOWN"),
        ("/v2/a/manifests/v1", "ns=%0d%0aX", 404, "NAME_UNKNOWN"),
        ("/v2/evil.example/a/manifests/v1", "", 404, "NAME_UNKNOWN"),
        ("/v2/ghcr.io:443/a/manifests/v1", "", 404, "NAME_UNKNOWN"),
        ("/v2/A/manifests/v1", "", 400, "NAME_INVALID"),
        ("/v2/a//b/manifests/v1", "", 400, "NAME_INVALID"),
        ("/v2/../etc/manifests/v1", "", 404, "NAME_UNKNOWN"),
        ("/v2/a/%2e%2e/manifests/v1", "", 400, "NAME_INVALID"),
        ("/v2/" + "a" * 300 + "/manifests/v1", "", 400, "NAME_INVALID"),
        ("/v2/" + "a/" * 3000 + "manifests/v1", "", 400, "NAME_INVALID"),
        ("/v2/%ff/manifests/v1", "", 400, "NAME_INVALID"),
        ("/v2/a/manifests/v1%00", "", 400, "NAME_INVALID"),
        ("/v2/a/manifests/-v1", "", 400, "TAG_INVALID"),
        ("/v2/a/manifests/" + "v" * 129, "", 400, "TAG_INVALID"),
        ("/v2/a/manifests/sha256:abc", "", 400, "DIGEST_INVALID"),
        (f"/v2/a/blobs/sha256:{HEX.upper()}", "", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/latest", "", 400, "DIGEST_INVALID"),
        (f"/v2/a/blobs/sha512:{HEX}{HEX}", "", 404, "BLOB_UNKNOWN"),
        (f"/v2/a/manifests/sha512:{HEX}{HEX}", "", 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/tags/list", "n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        ("/v2/a/tags/list", "n=" + "9" * 5000, 400, "PAGINATION_NUMBER_INVALID"),
        ("/v2/a/tags/list", "last=../x", 400, "TAG_INVALID"),
        ("/v2/a/tags/list", "n=%ff", 400, "UNSUPPORTED"),
        ("/v2/a/manifests/v1", "&".join("x=1" for _ in range(100)), 400, "UNSUPPORTED"),
        (f"/v2/a/referrers/sha256:{HEX}", "artifactType=a%0d%0ab", 400, "UNSUPPORTED"),
    ],
)
def test_refused(path: str, query: str, status: int, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(path, query)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert "\n" not in str(caught.value)


def test_paging_is_rebuilt_from_checked_values() -> None:
    request = parse("/v2/alpine/tags/list", "last=3.1&ns=docker.io&n=0010&x=y")
    assert isinstance(request, TagsRequest)
    assert request.query == "n=10&last=3.1"
    request = parse("/v2/alpine/tags/list", "ns=docker.io")
    assert isinstance(request, TagsRequest)
    assert request.query == ""


def test_without_default_a_bare_path_is_not_served() -> None:
    upstreams = Upstreams({"ghcr.io": "ghcr.io"})
    with pytest.raises(ApiError) as caught:
        parse_request("/v2/alpine/manifests/v1", "", upstreams)
    assert caught.value.status == 404
    assert parse_request("/v2/ghcr.io/a/manifests/v1", "", upstreams) == ManifestRequest(
        Repository("ghcr.io", "a"), Tag("v1")
    )


def test_a_target_must_be_a_registry() -> None:
    with pytest.raises(InvalidReference):
        Upstreams({"corp": "http://registry"})


names = st.from_regex(r"[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,3}", fullmatch=True)


@given(names, st.sampled_from(["docker.io", "ghcr.io", "registry.corp:5000"]), st.booleans())
def test_ns_names_the_registry(name: str, registry: str, escaped: bool) -> None:
    path = f"/v2/{quote(name, safe='' if escaped else '/')}/blobs/sha256:{HEX}"
    query = f"x=1&ns={quote(registry) if escaped else registry}"
    assert parse(path, query) == BlobRequest(Repository.parse(registry, name), DIGEST)


words = st.sampled_from(
    [
        "v2",
        "manifests",
        "blobs",
        "tags",
        "list",
        "referrers",
        "ghcr.io",
        "a",
        "..",
        "",
        "%2f",
        "%",
        f"sha256:{HEX}",
    ]
)


@given(
    st.one_of(st.text(), st.lists(words, max_size=8).map(lambda parts: "/v2/" + "/".join(parts))),
    st.one_of(st.text(), st.text().map(lambda text: f"ns={text}"), st.just("ns=ghcr.io")),
)
def test_garbage_is_refused_or_names_an_allowed_registry(path: str, query: str) -> None:
    try:
        request = parse(path, query)
    except ApiError as refused:
        answer = refused
    else:
        assert isinstance(request, BaseCheck) or request.repository.registry in UPSTREAMS.allowed
        return
    assert answer.status in {400, 404}
    assert answer.body
