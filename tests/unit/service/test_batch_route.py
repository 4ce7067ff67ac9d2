from __future__ import annotations

import pytest
from fake_engine import FakeSnapshot, fake_engine

from drdecr.corpus import Passage

BATCH = "/v1/search/batch"
SEARCH = "/v1/indexes/demo/search"


def test_results_stand_in_the_order_of_the_queries(client):
    words = ["moon", "cat", "pictures", "slashes", "moon"]
    answer = client.post(BATCH, json={"index": "demo", "queries": [{"query": word, "k": 1} for word in words]}).json()
    assert [result["hits"][0]["id"] for result in answer["results"]] == ["dog", "cat", "image", "a/b?c", "dog"]
    assert {result["status"] for result in answer["results"]} == {200}


def test_batch_answers_as_single_searches_do(client):
    queries = [{"query": f"the moon {number}", "k": number % 3 + 1, "highlight": True} for number in range(80)]
    batch = client.post(BATCH, json={"index": "demo", "queries": queries}).json()["results"]
    for query, result in zip(queries, batch, strict=True):
        assert result["hits"] == client.post(SEARCH, json=query).json()["hits"]


def test_wrong_query_fails_alone(client):
    answer = client.post(
        BATCH,
        json={
            "queries": [
                {"query": "cat", "index": "demo"},
                {"query": " ", "index": "demo"},
                {"query": "cat", "index": "other"},
                {"query": "cat"},
                {"query": "cat", "index": "demo", "colour": "red"},
                "cat",
                {"query": "dog", "index": "demo"},
            ]
        },
    )
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [200, 422, 404, 422, 422, 422, 200]
    assert [(result["error"] or {}).get("code") for result in results] == [
        None,
        "invalid_request",
        "index_not_found",
        "invalid_request",
        "invalid_request",
        "invalid_request",
        None,
    ]


def test_query_that_meets_a_defect_fails_alone(client, logged, monkeypatch):
    def passages_of(self, hits, **options):
        if len(hits) == 1:
            raise ZeroDivisionError("secret detail")
        return read(self, hits, **options)

    read = FakeSnapshot.passages_of
    monkeypatch.setattr(FakeSnapshot, "passages_of", passages_of)
    queries = [{"query": "cat", "k": k} for k in (2, 1, 2)]
    answer = client.post(BATCH, json={"index": "demo", "queries": queries})
    assert [result["status"] for result in answer.json()["results"]] == [200, 500, 200]
    assert answer.json()["results"][1]["error"]["code"] == "internal_error"
    assert [entry["index"] for entry in logged if entry["event"] == "defect"] == ["demo"]
    assert "secret" not in answer.text


@pytest.mark.parametrize("item", [{"index": "demo"}, {"index": "demo", "query": 5}])
def test_place_in_a_query_of_a_batch_is_written_as_in_a_search(client, item):
    (result,) = client.post(BATCH, json={"queries": [item]}).json()["results"]
    assert [error["pointer"] for error in result["error"]["errors"]] == ["/query"]


def test_queries_of_one_batch_may_name_several_indexes(make_client, encoder):
    client = make_client(
        fake_engine(
            encoder, one=FakeSnapshot([Passage("1", "cat")], "v1"), two=FakeSnapshot([Passage("2", "cat")], "v2")
        )
    )
    queries = [{"query": "cat", "index": name} for name in ("two", "one", "two")]
    results = client.post(BATCH, json={"queries": queries}).json()["results"]
    assert [(result["index"], result["index_version"], result["hits"][0]["id"]) for result in results] == [
        ("two", "v2", "2"),
        ("one", "v1", "1"),
        ("two", "v2", "2"),
    ]


def test_a_thousand_queries_are_accepted_and_one_more_is_not(client):
    queries = [{"query": "cat", "k": 1}] * 1_001
    assert client.post(BATCH, json={"index": "demo", "queries": queries[:1_000]}).status_code == 200
    assert client.post(BATCH, json={"index": "demo", "queries": queries}).status_code == 422
    assert client.post(BATCH, json={"index": "demo", "queries": []}).status_code == 422


def test_more_hits_than_an_answer_may_hold_are_refused(client):
    queries = [{"query": "cat", "k": 1_000}] * 101
    assert client.post(BATCH, json={"index": "demo", "queries": queries}).status_code == 422


@pytest.mark.parametrize("pieces", [1, 3])
def test_late_queries_of_a_batch_fail_and_the_others_are_answered(make_client, encoder, pieces):
    client = make_client()
    encoder.gate.clear()
    answer = client.post(
        BATCH, json={"index": "demo", "queries": [{"query": "cat", "k": 1}] * 32 * pieces, "timeout_ms": 50}
    )
    assert answer.status_code == 200
    assert [result["status"] for result in answer.json()["results"]] == [504] * 32 * pieces
