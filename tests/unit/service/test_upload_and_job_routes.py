"""Uploads, and what job routes answer when no worker or no database is there."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from drdecr.collections.directory import DataDirectory
from drdecr.collections.uploads import Delete, read_upload, staged_uploads
from drdecr.errors import ResourceError
from service.data import ServedData
from service.engine import Engine
from service.routes import health

NDJSON = {"content-type": "application/x-ndjson"}


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory(tmp_path / "data")
    directory.create_index("docs")
    return directory


@pytest.fixture
def client(make_client, encoder, directory):
    return make_client(
        Engine(encoder, {}), data=directory.root, index=(), max_body_bytes=1_024, max_upload_bytes=100_000
    )


def stage(client, body, path="/v1/indexes/docs/passages", **headers):
    return client.post(path, content=body, headers={**NDJSON, **headers})


def test_good_lines_are_staged_and_bad_ones_named(client, directory):
    answer = stage(client, b'{"id": "a", "text": "one"}\n{"id": "b"}\n\n{"id": "c", "text": "two"}')
    assert answer.status_code == 202
    assert answer.json() == {
        "index": "docs",
        "upload": 1,
        "staged": 2,
        "rejected": 1,
        "errors": [{"line": 2, "message": "`text` is missing or not a string"}],
    }
    assert staged_uploads(directory, "docs") == [1]


def test_deletions_are_staged(client, directory):
    answer = stage(client, b'{"id": "a"}\n', "/v1/indexes/docs/deletions")
    assert (answer.status_code, answer.json()["upload"]) == (202, 1)
    assert list(read_upload(directory, "docs", 1)) == [Delete("a")]


def test_metrics_count_the_builds_by_state_and_none_without_their_database(client, make_client, encoder, tmp_path):
    stage(client, b'{"id": "a", "text": "one"}\n')
    assert client.post("/v1/indexes/docs/builds", json={}).status_code == 202
    shown = client.get("/metrics").text
    assert 'drdecr_jobs{state="queued"} 1.0' in shown and 'drdecr_jobs{state="failed"} 0.0' in shown
    place = f"sqlite:///{tmp_path / 'missing' / 'jobs.sqlite'}"
    other = make_client(Engine(encoder, {}), data=tmp_path / "other", index=(), jobs_url=place)
    answer = other.get("/metrics")
    assert answer.status_code == 200
    assert "drdecr_jobs{" not in answer.text


def test_scrapes_of_a_database_that_hangs_are_answered_and_take_one_thread(client, monkeypatch):
    asked, answered = [], threading.Event()

    def hang(_: ServedData) -> None:
        asked.append(1)
        answered.wait(30)
        raise ResourceError("gone")

    monkeypatch.setattr(ServedData, "jobs", hang)
    monkeypatch.setattr(health, "_JOBS_S", 0.01)
    try:
        for _ in range(3):
            answer = client.get("/metrics")
            assert (answer.status_code, "drdecr_jobs{" in answer.text) == (200, False)
        assert asked == [1]
    finally:
        answered.set()


def test_upload_may_be_longer_than_other_bodies_but_not_endless(client, directory):
    line = b'{"id": "a", "text": "' + b"x" * 5_000 + b'"}\n'
    assert stage(client, line).status_code == 202
    for body in (line * 30, iter([line] * 30)):
        answer = stage(client, body)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert client.post("/v1/indexes", json={"name": "x" * 5_000}).status_code == 413
    assert staged_uploads(directory, "docs") == [1]


def test_upload_onto_a_full_disk_is_refused_and_stages_nothing(client, directory, monkeypatch):
    def full(*of):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        answer = stage(client, b'{"id": "a", "text": "one"}\n')
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_failed")
    assert staged_uploads(directory, "docs") == []
    assert stage(client, b'{"id": "a", "text": "one"}\n').status_code == 202


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("docs/passages", b"{}\n", {}, 422, "invalid_request"),
        ("docs/passages", b"", {}, 422, "invalid_request"),
        ("none/passages", b"{}\n", {}, 404, "not_found"),
        ("..%5c/passages", b"{}\n", {}, 422, "invalid_request"),
        ("docs/passages", b"{}\n", {"content-type": "application/json"}, 415, "unsupported_media_type"),
        ("docs/passages", b"{}\n", {"content-encoding": "gzip"}, 415, "unsupported_media_type"),
    ],
)
def test_upload_that_cannot_be_staged(client, path, body, headers, status, code):
    answer = stage(client, body, f"/v1/indexes/{path}", **headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_job_waits_for_a_worker(client):
    job = client.post("/v1/indexes/docs/builds", json={})
    assert (job.status_code, job.json()["state"], job.json()["mode"]) == (202, "queued", "incremental")
    found = client.get(job.headers["location"]).json()
    assert (found["state"], found["progress"], found["attempts"]) == ("queued", None, 0)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/indexes/docs/builds", {"mode": "sideways"}),
        ("GET", "/v1/jobs?limit=0", None),
        ("GET", "/v1/jobs?offset=-1", None),
    ],
)
def test_wrong_request_for_jobs(client, method, path, body):
    assert client.request(method, path, json=body).json()["code"] == "invalid_request"


@pytest.mark.parametrize("job", ["x", f"docs~{'0' * 32}", "%00", "docs~%25", "..", f"docs~{'0' * 32}%00"])
def test_unknown_job(client, job):
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
        answer = client.request(method, f"/v1/jobs/{job}{path}")
        assert answer.status_code == 404


def test_jobs_of_what_is_no_name(client):
    for index in ("%00", "%25", "a/b"):
        assert client.get(f"/v1/jobs?index={index}").json() == {"jobs": []}


def test_search_goes_on_without_the_database_of_the_jobs(make_client, encoder, directory):
    url = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"
    client = make_client(Engine(encoder, {}), data=directory.root, index=(), jobs_url=url)
    answer = client.get("/v1/jobs")
    assert (answer.status_code, answer.json()["code"]) == (503, "jobs_unavailable")
    assert client.get("/v1/indexes/docs").status_code == 200
    assert client.get("/readyz").status_code == 200
