"""What is in registries and is no image: artifacts, and what refers to an image, read through the mirror.

Debian's docker-registry has no referrers API, so referrers are kept by the tag schema, as clients do there.
Source: OCI distribution-spec 1.1, "Listing Referrers" and "Unavailable Referrers API"; image-spec 1.1,
manifest.md.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from dataclasses import dataclass

import httpx
import pytest

from benchmarks.testbed import Image
from benchmarks.testbed.node import MIRROR_URL
from p2pd.model.content import OCI_INDEX, OCI_MANIFEST
from tests.system.clients import BUILT, Client, ClientSite

pytestmark = pytest.mark.system

SEEDER_AT_ORIGIN = "10.50.0.2"
REPOSITORY = "team/signed"
SBOM, MODEL = "application/vnd.example.sbom", "application/vnd.example.model"
EMPTY = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True, slots=True)
class Artifact:
    kind: str
    body: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image and two artifacts that refer to it; the larger one has a tag too."""

    image: Image
    sbom: Artifact
    model: Artifact


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def descriptor(media_type: str, body: bytes, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(body), "size": len(body), **more}


def make_artifact(kind: str, body: bytes, subject: Image) -> Artifact:
    named = {"annotations": {"org.opencontainers.image.title": "payload"}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": descriptor(EMPTY, b"{}"),
        "layers": [descriptor(kind, body, **named)],
        "subject": {
            "mediaType": subject.manifest.media_type,
            "digest": str(subject.manifest.digest),
            "size": subject.manifest.size,
        },
    }
    return Artifact(kind, body, json.dumps(manifest).encode())


def put_blob(client: httpx.Client, body: bytes) -> None:
    begun = client.post(f"/v2/{REPOSITORY}/blobs/uploads/").raise_for_status()
    url = httpx.URL(begun.headers["Location"]).copy_merge_params({"digest": digest_of(body)})
    client.put(url, content=body).raise_for_status()


def put_manifest(client: httpx.Client, reference: str, body: bytes, media_type: str = OCI_MANIFEST) -> None:
    url = f"/v2/{REPOSITORY}/manifests/{reference}"
    client.put(url, content=body, headers={"Content-Type": media_type}).raise_for_status()


@pytest.fixture(scope="module")
def pushed(client_site: ClientSite) -> Pushed:
    _, image = client_site.push(REPOSITORY)
    sbom = make_artifact(SBOM, b'{"packages": []}', image)
    model = make_artifact(MODEL, random.Random(1).randbytes(5_000_000), image)
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            descriptor(OCI_MANIFEST, each.manifest, artifactType=each.kind) for each in (sbom, model)
        ],
    }

    def put() -> None:
        with httpx.Client(base_url="http://127.0.0.1:5000", timeout=60, trust_env=False) as client:
            for body in (b"{}", sbom.body, model.body):
                put_blob(client, body)
            for each in (sbom, model):
                put_manifest(client, each.digest, each.manifest)
            put_manifest(client, "model", model.manifest)
            tag = str(image.manifest.digest).replace(":", "-")
            put_manifest(client, tag, json.dumps(index).encode(), OCI_INDEX)

    client_site.bed.outer.inside("origin", put)
    return Pushed(image, sbom, model)


@pytest.mark.parametrize("kind", [None, SBOM])
def test_referrers_of_a_registry_without_their_api(
    client_site: ClientSite, pushed: Pushed, kind: str | None
) -> None:
    url = f"/v2/origin/{REPOSITORY}/referrers/{pushed.image.manifest.digest}"
    answer = client_site.node.http("GET", url + (f"?artifactType={kind}" if kind else ""))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == OCI_INDEX
    assert answer.headers.get("oci-filters-applied") == ("artifactType" if kind else None)
    found = {each["artifactType"]: each["digest"] for each in answer.json()["manifests"]}
    both = {SBOM: pushed.sbom.digest, MODEL: pushed.model.digest}
    assert found == ({kind: both[kind]} if kind else both)


def test_client_that_goes_by_the_tag_schema_itself(client_site: ClientSite, pushed: Pushed) -> None:
    tag = str(pushed.image.manifest.digest).replace(":", "-")
    answer = client_site.node.http("GET", f"/v2/origin/{REPOSITORY}/manifests/{tag}")
    assert [each["digest"] for each in answer.json()["manifests"]] == [
        pushed.sbom.digest,
        pushed.model.digest,
    ]


@pytest.mark.parametrize("which", ["sbom", "model"])
def test_artifact_is_read_by_plain_http(client_site: ClientSite, pushed: Pushed, which: str) -> None:
    artifact = pushed.sbom if which == "sbom" else pushed.model
    manifest = client_site.node.http("GET", f"/v2/origin/{REPOSITORY}/manifests/{artifact.digest}")
    assert (manifest.content, manifest.headers["content-type"]) == (artifact.manifest, OCI_MANIFEST)
    blob = client_site.node.http("GET", f"/v2/origin/{REPOSITORY}/blobs/{digest_of(artifact.body)}")
    assert blob.content == artifact.body
    assert client_site.asked(REPOSITORY) == {SEEDER_AT_ORIGIN}


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo not installed: apt-get install skopeo")
def test_skopeo_copies_an_artifact(client_site: ClientSite, pushed: Pushed) -> None:
    client = Client(client_site, "skopeo-artifact")
    client.install("podman")
    client.run("skopeo", "copy", f"docker://docker.io/{REPOSITORY}:model", f"dir:{client.home}/copied")
    copied = client.files / "copied" / digest_of(pushed.model.body).removeprefix("sha256:")
    assert copied.read_bytes() == pushed.model.body


@pytest.mark.skipif(not (BUILT / "oras").exists(), reason="oras not built: run make clients")
def test_oras_discovers_and_pulls(client_site: ClientSite, pushed: Pushed) -> None:
    client = Client(client_site, "oras")
    repository = f"{MIRROR_URL.removeprefix('http://')}/origin/{REPOSITORY}"
    found = client.run(BUILT / "oras", "discover", "--plain-http", "--format", "json", f"{repository}:v1")
    assert pushed.sbom.digest in found
    assert pushed.model.digest in found
    client.run(BUILT / "oras", "pull", "--plain-http", "--output", client.home, f"{repository}:model")
    assert (client.files / "payload").read_bytes() == pushed.model.body
