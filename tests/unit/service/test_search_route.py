from __future__ import annotations

import pytest
from fake_engine import FakeEncoder, FakeSnapshot, fake_engine

from drdecr.corpus import Passage
from drdecr.index.backend import SearchParams

SEARCH = "/v1/indexes/demo/search"


def test_the_best_passage_comes_first_with_all_that_is_stored_of_it(client):
    answer = client.post(SEARCH, json={"query": "editor for pictures"}).json()
    assert answer["hits"][0]["id"] == "image"
    assert answer["hits"][0]["title"] == "Image editor"
    assert answer["hits"][0]["text"] == "An editor for pictures and drawings"
    assert answer["hits"][0]["metadata"] == {"popular": True}
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert (answer["index"], answer["index_version"], answer["warnings"]) == ("demo", "v1", [])


def test_no_more_hits_than_k(client):
    assert len(client.post(SEARCH, json={"query": "the", "k": 2}).json()["hits"]) == 2
    assert len(client.post(SEARCH, json={"query": "the", "k": 1000}).json()["hits"]) == 4


def test_stages_add_up_to_no_more_than_the_total(client):
    took = client.post(SEARCH, json={"query": "cat"}).json()["took_ms"]
    assert set(took) == {"queue", "tokenise", "encode", "search", "fetch", "explain", "total"}
    assert took["encode"] > 0
    assert sum(took.values()) - took["total"] <= took["total"]


def test_highlights_are_whole_words_of_title_and_text(client):
    hit = client.post(SEARCH, json={"query": "editor pictures", "highlight": True}).json()["hits"][0]
    marked = {(part["field"], hit[part["field"]][part["start"] : part["end"]]) for part in hit["highlights"]}
    assert marked == {("title", "editor"), ("text", "pictures")}
    assert hit["explanation"] is None


def test_explanation_accounts_for_the_score(client):
    hit = client.post(SEARCH, json={"query": "the moon", "explain": True}).json()["hits"][0]
    explanation = hit["explanation"]
    assert hit["id"] == "dog"
    assert explanation["maxsim"] == pytest.approx(sum(token["score"] for token in explanation["tokens"]), abs=1e-4)
    assert explanation["maxsim"] + explanation["sentence"] == pytest.approx(hit["score"], abs=1e-4)
    moon = explanation["tokens"][1]
    assert moon["query"] == {"start": 4, "end": 8, "text": "moon"}
    assert moon["passage"]["text"] == "moon" == hit["text"][moon["passage"]["start"] : moon["passage"]["end"]]
    assert hit["highlights"] is None


def test_params_reach_the_index(make_client, encoder):
    snapshot = FakeSnapshot()
    client = make_client(fake_engine(encoder, demo=snapshot))
    client.post(SEARCH, json={"query": "cat", "params": {"nprobe": 3, "candidates": 70}})
    assert snapshot.params[-1] == SearchParams(nprobe=3, candidates=70)


def test_long_query_is_answered_with_a_warning(client):
    answer = client.post(SEARCH, json={"query": "word " * 9}).json()
    assert answer["hits"]
    assert answer["warnings"] == [
        {"code": "query_truncated", "message": "Query cut at 8 tokens; the rest was not used."}
    ]


def test_query_in_an_unknown_script_is_answered_with_a_warning(client):
    warnings = client.post(SEARCH, json={"query": "ʘ"}).json()["warnings"]
    assert [warning["code"] for warning in warnings] == ["query_unknown"]


def test_query_without_tokens_has_no_hits_and_a_warning(client):
    answer = client.post(SEARCH, json={"query": "?!"}).json()
    assert answer["hits"] == []
    assert [warning["code"] for warning in answer["warnings"]] == ["query_empty"]


def test_control_characters_become_spaces_and_positions_still_fit(client, encoder: FakeEncoder):
    answer = client.post(SEARCH, json={"query": "the\u0000moon\u0085", "explain": True}).json()
    assert encoder.texts == ["the moon "]
    assert answer["hits"][0]["explanation"]["tokens"][1]["query"] == {"start": 4, "end": 8, "text": "moon"}


@pytest.mark.parametrize("query", ["", "   ", "\u0000\u001f\t", "　"])
def test_blank_query_is_refused(client, query):
    answer = client.post(SEARCH, json={"query": query})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": "/query", "message": "is blank"}]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/query"),
        ({"query": None}, "/query"),
        ({"query": ["cat"]}, "/query"),
        ({"query": "cat", "k": 0}, "/k"),
        ({"query": "cat", "k": 1001}, "/k"),
        ({"query": "cat", "k": "10"}, "/k"),
        ({"query": "cat", "k": 1e300}, "/k"),
        ({"query": "cat", "explain": "no"}, "/explain"),
        ({"query": "cat", "timeout_ms": 0}, "/timeout_ms"),
        ({"query": "cat", "filter": {"musst": []}}, "/filter/musst"),
        ({"query": "cat", "filter": []}, "/filter"),
        ({"query": "cat", "filter": {"should": []}}, "/filter/should"),
        ({"query": "cat", "filter": {"must": [{"field": "a", "eq": 1}, {"field": "b"}]}}, "/filter/must/1"),
        ({"query": "cat", "filter": {"must": [{"field": "a", "range": {"gt": True}}]}}, "/filter/must/0/range/gt"),
        ({"query": "cat", "filter": {"must_not": [{"should": [{"eq": 1}]}]}}, "/filter/must_not/0/should/0/field"),
        ({"query": "cat", "filter": {"must": [{"field": "a", "eq": 2**64}]}}, "/filter/must/0/eq"),
        ({"query": "cat", "params": {"effort": "furious"}}, "/params/effort"),
        ({"query": "cat", "cursor": "x"}, "/cursor"),
        ({"query": "cat", "params": {"nprobe": 0}}, "/params/nprobe"),
        ({"query": "cat", "params": {"mode": "fast"}}, "/params/mode"),
        ({"query": "cat", "k": 101, "explain": True}, "/k"),
        ({"query": "cat", "k": 101, "highlight": True}, "/k"),
        ({"query": "x" * 4097}, "/query"),
        (["cat"], "/"),
        ("cat", "/"),
        (5, "/"),
    ],
)
def test_wrong_field_is_named(client, body, pointer):
    answer = client.post(SEARCH, json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_request"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_unknown_index_is_not_found_and_the_known_ones_are_named(client):
    answer = client.post("/v1/indexes/other/search", json={"query": "cat"})
    assert answer.status_code == 404
    assert answer.json()["code"] == "index_not_found"
    assert "demo" in answer.json()["detail"]


def test_each_index_answers_from_its_own_snapshot(make_client, encoder):
    client = make_client(
        fake_engine(
            encoder,
            one=FakeSnapshot([Passage("first", "cat")], "v1"),
            two=FakeSnapshot([Passage("second", "cat")], "v2"),
        )
    )
    for name, found, version in (("one", "first", "v1"), ("two", "second", "v2")):
        answer = client.post(f"/v1/indexes/{name}/search", json={"query": "cat"}).json()
        assert ([hit["id"] for hit in answer["hits"]], answer["index_version"]) == ([found], version)
