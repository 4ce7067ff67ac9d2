"""Archives over HTTP."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from changing import ENCODER
from data_lab import publish

from drdecr.collections.archives import write_archive
from drdecr.collections.directory import DataDirectory
from service.engine import Engine


@pytest.fixture
def directory(tmp_path: Path, encoder) -> DataDirectory:
    directory = DataDirectory(tmp_path / "data")
    directory.create_index("docs")
    for number in (1, 2):
        publish(directory, "docs", encoder, {"x": f"part {number}"}, tmp_path / "scratch")
    return directory


@pytest.fixture
def client(make_client, encoder, directory):
    encoder.forget()
    return make_client(Engine(encoder, {}), data=directory.root, index=())


def test_archive_is_made_listed_downloaded_restored_and_deleted(client):
    made = client.post("/v1/indexes/docs/snapshots", json={"number": 1})
    assert made.status_code == 201
    assert client.get("/v1/indexes/docs/snapshots").json() == {"snapshots": [made.json()]}
    got = client.get(made.headers["location"])
    digest = hashlib.sha256(got.content)
    assert digest.hexdigest() == made.json()["sha256"]
    assert got.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    restored = client.post("/v1/indexes/docs/restore", json={"snapshot": made.json()["id"]})
    assert (restored.status_code, restored.json()) == (201, {"index": "docs", "number": 3})
    assert client.get("/v1/indexes/docs/passages/x").json()["text"] == "part 1"
    assert client.get("/v1/indexes/docs").json()["version"] == made.json()["version"]
    assert client.delete(made.headers["location"]).status_code == 204
    assert client.delete(made.headers["location"]).status_code == 404


def test_archive_of_another_student_is_refused(client, directory, tmp_path):
    directory.create_index("foreign")
    publish(directory, "foreign", ENCODER, {"x": "text"}, tmp_path / "scratch")
    record = write_archive(directory, "foreign")
    refused = client.post("/v1/indexes/docs/restore", json={"snapshot": record.id, "of": "foreign"})
    assert (refused.status_code, refused.json()["code"]) == (409, "version_unservable")
    assert client.get("/v1/indexes/docs").json()["number"] == 2


def test_dropping_an_index_takes_what_a_killed_archive_left(client, directory):
    made = client.post("/v1/indexes/docs/snapshots", json={}).json()
    left = directory.root / "snapshots" / "docs" / ".000001-0123abcd.tar"
    left.write_bytes(b"half a tar")
    assert client.delete("/v1/indexes/docs").status_code == 204
    assert not left.exists()
    assert client.get("/v1/indexes/docs/snapshots").json() == {"snapshots": [made]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "docs/snapshots", {"number": 9}, 404),
        ("POST", "none/snapshots", {}, 404),
        ("GET", "docs/snapshots/..%2f..%2fnames.lock", None, 404),
        ("GET", "docs/snapshots/x", None, 404),
        ("POST", "docs/restore", {"snapshot": "x"}, 404),
        ("POST", "docs/restore", {"snapshot": "x", "of": "../y"}, 422),
        ("POST", "docs/restore", {}, 422),
    ],
)
def test_wrong_request(client, method, path, body, status):
    assert client.request(method, f"/v1/indexes/{path}", json=body).status_code == status
