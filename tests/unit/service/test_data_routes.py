"""The routes of indexes and aliases, over a real data directory and the fake encoder."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from changing import ENCODER
from data_lab import publish
from fake_engine import FakeEncoder, fake_engine

from drdecr.collections.directory import DataDirectory
from service.engine import Engine


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    return DataDirectory(tmp_path / "data")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture
def client(make_client, encoder, directory):
    return make_client(Engine(encoder, {}), data=directory.root, index=(), follow_s=0.01)


@pytest.fixture
def docs(client, directory, encoder, scratch):
    assert client.post("/v1/indexes", json={"name": "docs"}).status_code == 201
    for number in (1, 2):
        publish(directory, "docs", encoder, {"x": f"part {number}", "y": "a kettle"}, scratch)
    eventually(lambda: client.get("/v1/indexes/docs").json()["number"] == 2)
    return client


def eventually(found) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def put(client, alias, number=None, **headers):
    body = {"index": "docs"} if number is None else {"index": "docs", "number": number}
    return client.put(f"/v1/aliases/{alias}", json=body, headers=headers)


def text_of(client, name):
    return client.get(f"/v1/indexes/{name}/passages/x").json()["text"]


def test_new_index_is_listed_and_not_yet_searched(client):
    made = client.post("/v1/indexes", json={"name": "docs", "bits": 4})
    assert (made.status_code, made.headers["location"]) == (201, "/v1/indexes/docs")
    assert made.json()["version"] is None and made.json()["stored"]["bits"] == 4
    assert client.get("/v1/indexes").json()["indexes"] == [client.get("/v1/indexes/docs").json()]
    answer = client.post("/v1/indexes/docs/search", json={"query": "cat"})
    assert (answer.status_code, answer.json()["code"]) == (404, "index_not_built")
    assert client.post("/v1/indexes", json={"name": "docs"}).json()["code"] == "name_taken"


def test_index_and_alias_answer_alike(docs):
    assert put(docs, "live", 1).status_code == 200
    assert (text_of(docs, "live"), text_of(docs, "docs")) == ("part 1", "part 2")
    found = docs.post("/v1/indexes/live/search", json={"query": "kettle", "k": 1}).json()
    assert (found["hits"][0]["id"], found["index"]) == ("y", "live")
    batch = docs.post(
        "/v1/search/batch",
        json={"queries": [{"query": "kettle", "index": "live"}, {"query": "kettle", "index": "docs"}]},
    ).json()["results"]
    assert [result["status"] for result in batch] == [200, 200]
    assert batch[0]["index_version"] != batch[1]["index_version"]
    described = docs.get("/v1/indexes/live").json()
    assert (described["alias_of"], described["number"]) == ("docs", 1)
    assert {index["name"] for index in docs.get("/v1/info").json()["indexes"]} == {"docs", "live"}
    listed = docs.get("/v1/indexes").json()["indexes"]
    assert [index["name"] for index in listed] == ["docs"]
    assert listed[0]["stored"]["aliases"] == ["live"]
    assert [version["number"] for version in listed[0]["stored"]["versions"]] == [1, 2]


def test_switch_and_rollback_by_putting_the_previous(docs):
    put(docs, "live", 1)
    switched = put(docs, "live")
    assert switched.json()["number"] == 2
    assert text_of(docs, "live") == "part 2"
    assert switched.json()["index_version"] == docs.get("/v1/indexes/live").json()["version"]
    back = docs.put("/v1/aliases/live", json=switched.json()["previous"])
    assert (back.json()["number"], text_of(docs, "live")) == (1, "part 1")


def test_if_match_lets_one_of_two_writers_through(docs):
    first = put(docs, "live", 1, **{"If-None-Match": "*"})
    etag = first.headers["etag"]
    assert docs.get("/v1/aliases/live").headers["etag"] == etag
    assert put(docs, "live", 2, **{"If-Match": etag}).status_code == 200
    late = put(docs, "live", 1, **{"If-Match": etag})
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    assert put(docs, "live", 1, **{"If-None-Match": "*"}).status_code == 412
    assert put(docs, "other", 1, **{"If-Match": "*"}).status_code == 412
    assert docs.delete("/v1/aliases/live", headers={"If-Match": etag}).status_code == 412
    assert put(docs, "live", 1, **{"If-Match": f'"x", {docs.get("/v1/aliases/live").headers["etag"]}'}).is_success


def test_alias_is_dropped_and_its_name_is_free(docs):
    put(docs, "live", 1)
    refused = docs.delete("/v1/indexes/docs")
    assert (refused.status_code, refused.json()["code"]) == (409, "index_in_use")
    assert docs.delete("/v1/aliases/live").status_code == 204
    assert docs.post("/v1/indexes/live/search", json={"query": "x"}).status_code == 404
    assert docs.delete("/v1/indexes/docs").status_code == 204
    assert docs.get("/v1/indexes").json() == {"indexes": []}
    assert docs.delete("/v1/indexes/docs").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("PUT", "/v1/aliases/live", {"index": "docs", "number": 9}, 404, "not_found"),
        ("PUT", "/v1/aliases/live", {"index": "none"}, 404, "not_found"),
        ("PUT", "/v1/aliases/docs", {"index": "docs"}, 409, "name_taken"),
        ("PUT", "/v1/aliases/..", {"index": "docs"}, 404, "not_found"),
        ("PUT", "/v1/aliases/%2e%2e%5cx", {"index": "docs"}, 422, "invalid_request"),
        ("PUT", "/v1/aliases/live", {"index": "../docs"}, 422, "invalid_request"),
        ("GET", "/v1/aliases/none", None, 404, "not_found"),
        ("DELETE", "/v1/aliases/none", None, 404, "not_found"),
        ("POST", "/v1/indexes", {"name": "../x"}, 422, "invalid_request"),
        ("POST", "/v1/indexes", {"name": "x", "bits": 5}, 422, "invalid_request"),
    ],
)
def test_request_that_cannot_be_fulfilled(docs, method, path, body, status, code):
    answer = docs.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_version_of_another_student_is_not_switched_to(docs, directory, scratch):
    put(docs, "live", 2)
    publish(directory, "docs", ENCODER, {"x": "foreign"}, scratch)
    refused = put(docs, "live", 3)
    assert (refused.status_code, refused.json()["code"]) == (409, "version_unservable")
    assert (text_of(docs, "live"), text_of(docs, "docs")) == ("part 2", "part 2")
    assert docs.get("/readyz").status_code == 200


def test_index_that_cannot_be_served_from_the_start_says_why(make_client, encoder, directory, scratch):
    directory.create_index("docs")
    publish(directory, "docs", ENCODER, {"x": "foreign"}, scratch)
    client = make_client(Engine(encoder, {}), data=directory.root, index=())
    answer = client.post("/v1/indexes/docs/search", json={"query": "x"})
    assert (answer.status_code, answer.json()["code"]) == (503, "index_unavailable")
    assert answer.headers["retry-after"] == "30"
    reasons = {check["name"]: check["reason"] for check in client.get("/readyz").json()["checks"]}
    assert "sentence dimensions" in reasons["data"]


def test_change_by_another_process_is_noticed(docs, directory):
    directory.switch_alias("live", directory.target("docs", 1))
    eventually(lambda: docs.get("/v1/indexes/live").status_code == 200)
    assert text_of(docs, "live") == "part 1"
    directory.delete_alias("live")
    eventually(lambda: docs.get("/v1/indexes/live").status_code == 404)


def test_damaged_alias_file_leaves_what_is_served(docs, directory, logged):
    put(docs, "live", 1)
    (directory.root / "aliases" / "live.json").write_text("{")
    eventually(lambda: any(entry["event"] == "name not followed" for entry in logged))
    assert text_of(docs, "live") == "part 1"


def test_fixed_snapshots_go_on_beside_the_data_directory(make_client, directory, encoder: FakeEncoder, scratch):
    directory.create_index("docs")
    publish(directory, "docs", encoder, {"x": "part 1"}, scratch)
    client = make_client(fake_engine(encoder), data=directory.root)
    assert [index["name"] for index in client.get("/v1/indexes").json()["indexes"]] == ["demo", "docs"]
    assert client.get("/v1/indexes/demo").json()["stored"] is None
    assert client.post("/v1/indexes", json={"name": "demo"}).json()["code"] == "name_taken"
    assert put(client, "demo", 1).json()["code"] == "name_taken"


def test_service_without_a_data_directory_says_so(make_client):
    answer = make_client().get("/v1/aliases")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_data_directory")
