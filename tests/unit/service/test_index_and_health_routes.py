from __future__ import annotations

import threading

import pytest
from fake_engine import FakeSnapshot, fake_engine
from starlette.testclient import TestClient

from drdecr.errors import SnapshotCorruptError
from service.app import create_server
from service.settings import Settings

SETTINGS = Settings(student="student", index="demo=snapshot", threads=1)


def test_indexes_are_listed_and_described(make_client, encoder):
    client = make_client(fake_engine(encoder, one=FakeSnapshot(version="v1"), two=FakeSnapshot(version="v2")))
    listed = client.get("/v1/indexes").json()["indexes"]
    assert [(index["name"], index["version"], index["passages"]) for index in listed] == [
        ("one", "v1", 4),
        ("two", "v2", 4),
    ]
    assert client.get("/v1/indexes/two").json() == listed[1]
    assert client.get("/v1/indexes/three").json()["code"] == "index_not_found"


def test_passage_is_returned_as_it_was_stored(client):
    assert client.get("/v1/indexes/demo/passages/cat").json() == {
        "id": "cat",
        "title": "The cat",
        "text": "A cat sleeps on the mat.",
        "metadata": {},
    }


def test_passage_id_may_hold_slashes_and_question_marks(client):
    passage = client.get("/v1/indexes/demo/passages/a/b%3Fc").json()
    assert (passage["id"], passage["metadata"]) == ("a/b?c", {"section": "odd", "tags": ["x", "y"]})


def test_unknown_passage_is_not_found(client):
    assert client.get("/v1/indexes/demo/passages/none").json()["code"] == "passage_not_found"
    assert client.get("/v1/indexes/other/passages/cat").json()["code"] == "index_not_found"


def test_alive_at_once_but_ready_only_when_loaded():
    may_load = threading.Event()

    def load(_, readiness):
        assert may_load.wait(30)
        readiness.update("encoder", "loaded", ok=True)
        readiness.update("index:demo", "loaded", ok=True)
        return fake_engine()

    with TestClient(create_server(SETTINGS, load=load)) as client:
        assert client.get("/livez").status_code == 200
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["status"] == "not_ready"
        assert {check["name"]: check["ok"] for check in answer.json()["checks"]} == {
            "encoder": False,
            "index:demo": False,
            "accepting": False,
        }
        search = client.post("/v1/indexes/demo/search", json={"query": "cat"})
        assert (search.status_code, search.json()["code"], search.headers["retry-after"]) == (503, "not_ready", "1")
        may_load.set()
        while client.get("/readyz").status_code != 200:
            pass
        assert client.get("/health").json()["status"] == "ready"
        assert client.post("/v1/indexes/demo/search", json={"query": "cat"}).status_code == 200


def test_failed_load_reaches_the_process_and_fails_readiness():
    failures = []

    def load(_, readiness):
        readiness.update("encoder", "loaded", ok=True)
        raise SnapshotCorruptError("a byte differs")

    with TestClient(create_server(SETTINGS, load=load, on_failure=failures.append)) as client:
        while not failures:
            client.get("/livez")
        checks = {check["name"]: check for check in client.get("/readyz").json()["checks"]}
        assert checks["index:demo"] == {"name": "index:demo", "ok": False, "reason": "failed to load"}
        assert client.get("/livez").status_code == 200
    assert str(failures[0]) == "a byte differs"


def test_draining_fails_readiness_names_it_and_still_answers(client):
    client.app.state.service.readiness.drain()
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"][-1] == {"name": "accepting", "ok": False, "reason": "draining: about to stop"}
    search = client.post("/v1/indexes/demo/search", json={"query": "cat"})
    assert (search.status_code, search.headers["connection"]) == (200, "close")


def test_each_question_of_a_batch_is_one_observation_of_its_stages(client):
    client.post("/v1/search/batch", json={"index": "demo", "queries": [{"query": "cat"}, {"query": "dog"}]})
    lines = client.get("/metrics").text.splitlines()
    for stage in ("search", "fetch"):
        assert f'drdecr_stage_seconds_count{{stage="{stage}"}} 2.0' in lines


def test_metrics_count_requests_by_route_and_time_by_stage(client):
    for query in ("cat", "dog", " "):
        client.post("/v1/indexes/demo/search", json={"query": query})
    client.get("/no/such/route")
    lines = client.get("/metrics").text.splitlines()
    route = 'route="/v1/indexes/{alias}/search"'
    assert f'drdecr_http_requests_total{{method="POST",{route},status="200"}} 2.0' in lines
    assert f'drdecr_http_requests_total{{method="POST",{route},status="422"}} 1.0' in lines
    assert 'drdecr_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in lines
    for stage in ("queue", "encode", "search", "fetch"):
        assert f'drdecr_stage_seconds_count{{stage="{stage}"}} 2.0' in lines
    assert 'drdecr_queries_total{index="demo"} 2.0' in lines
    assert 'drdecr_index_passages{index="demo"} 4.0' in lines
    assert "drdecr_ready 1.0" in lines
    assert "drdecr_queue_admitted 0.0" in lines


def test_two_apps_do_not_share_metrics(make_client, client):
    client.post("/v1/indexes/demo/search", json={"query": "cat"})
    assert 'drdecr_queries_total{index="demo"}' not in make_client().get("/metrics").text


def test_info_names_the_student_and_the_indexes(client):
    info = client.get("/v1/info").json()
    assert info["student"]["fingerprint"] == "f" * 64
    assert info["indexes"][0]["version"] == "v1"
    assert info["runtime"]["numpy"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
def test_health_routes_only_read(client, method):
    assert client.request(method, "/readyz").status_code == 405
