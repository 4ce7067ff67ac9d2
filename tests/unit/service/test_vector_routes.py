from __future__ import annotations

import base64
import time

import numpy as np
import pytest
from fake_engine import DIM, FakeEncoder, fake_engine

from service.routes import vectors


def test_encode_returns_what_the_encoder_gives(client):
    answer = client.post("/v1/encode", json={"texts": ["the moon", "cat"]}).json()
    expected = FakeEncoder().encode(["the moon", "cat"], "query")
    assert (answer["student"], answer["dim"], answer["sentence_dim"]) == ("f" * 64, DIM, DIM)
    for number, embedding in enumerate(answer["embeddings"]):
        np.testing.assert_array_equal(np.float32(embedding["vectors"]), expected.tokens_of(number))
        np.testing.assert_array_equal(np.float32(embedding["sentence"]), expected.sentences[number])
    assert answer["embeddings"][0]["spans"] == [[0, 3], [4, 8]]


def test_base64_holds_the_same_vectors(client):
    body = {"texts": ["the moon"], "kind": "passage"}
    plain = client.post("/v1/encode", json=body).json()["embeddings"][0]
    packed = client.post("/v1/encode", json={**body, "format": "base64"}).json()["embeddings"][0]
    rows = np.frombuffer(base64.b64decode(packed["vectors"]), "<f4").reshape(-1, DIM)
    np.testing.assert_array_equal(rows, np.float32(plain["vectors"]))
    np.testing.assert_array_equal(
        np.frombuffer(base64.b64decode(packed["sentence"]), "<f4"), np.float32(plain["sentence"])
    )


def test_cut_text_is_told(client):
    query, passage, longer = (
        client.post("/v1/encode", json={"texts": ["word " * count], "kind": kind}).json()["embeddings"][0]
        for kind, count in (("query", 10), ("passage", 10), ("passage", 100))
    )
    assert [warning["code"] for warning in query["warnings"]] == ["query_truncated"]
    assert passage["warnings"] == []
    [warning] = longer["warnings"]
    assert warning["code"] == "text_truncated"
    assert f"before character {longer['spans'][-1][1]};" in warning["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"texts": []},
        {"texts": ["a"] * 65},
        {"texts": ["a", " "]},
        {"texts": ["a"], "kind": "title"},
        {"texts": "a"},
        {"texts": [1]},
    ],
)
def test_unusable_texts_are_refused(client, body):
    assert client.post("/v1/encode", json=body).status_code == 422


def test_unusable_text_is_named(client):
    assert client.post("/v1/encode", json={"texts": ["a", " "]}).json()["errors"][0]["pointer"] == "/texts/1"


def test_rerank_orders_texts_as_a_search_would(client):
    hits = client.post("/v1/indexes/demo/search", json={"query": "the moon"}).json()["hits"]
    texts = [f"{hit['title']}: {hit['text']}" if hit["title"] else hit["text"] for hit in hits]
    answer = client.post("/v1/rerank", json={"query": "the moon", "texts": texts[::-1]}).json()
    assert [result["index"] for result in answer["results"]] == [3, 2, 1, 0]
    assert [result["score"] for result in answer["results"]] == pytest.approx(
        [hit["score"] for hit in hits], abs=1e-5
    )


def test_blank_lines_of_passages_end_sentences_as_in_an_index(client, monkeypatch):
    seen: list[str] = []
    encode_passages = vectors.encode_passages

    def looking(encoder, texts, *rest):
        seen.extend(texts)
        return encode_passages(encoder, texts, *rest)

    monkeypatch.setattr(vectors, "encode_passages", looking)
    body = {"query": "a\nquery", "texts": ["One thing\n\nanother\x00thing"]}
    assert client.post("/v1/rerank", json=body).status_code == 200
    assert seen == ["One thing\n\nanother thing"]


def test_rerank_returns_the_best_k(client):
    answer = client.post("/v1/rerank", json={"query": "cat", "texts": ["dog", "cat", "moon"], "k": 1}).json()
    assert [result["index"] for result in answer["results"]] == [1]


def test_rerank_reads_long_texts_whole(client):
    texts = ["word " * 20, "word " * 40 + "cat", "cat"]
    answer = client.post("/v1/rerank", json={"query": "cat", "texts": texts}).json()
    assert [result["index"] for result in answer["results"]] == [2, 1, 0]
    assert answer["warnings"] == []


def test_rerank_tells_of_texts_whose_ends_it_did_not_read(client, monkeypatch):
    monkeypatch.setattr("drdecr.encoder.windows.MAX_WINDOWS", 3)
    texts = ["word " * 40, "word " * 80]
    warnings = client.post("/v1/rerank", json={"query": "cat", "texts": texts}).json()["warnings"]
    (warning,) = warnings
    assert warning["code"] == "text_truncated" and warning["message"].startswith("The ends of 1 of the texts")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/encode", {"texts": ["one"] * 8, "kind": "passage"}),
        ("/v1/rerank", {"query": "cat", "texts": ["one"] * 8}),
    ],
)
def test_encoding_stops_between_two_batches_when_its_time_is_up(make_client, encoder, monkeypatch, path, body):
    batches = []

    def slowly(tokens, *, progress=None):
        for token in tokens:
            batches.append(token)
            time.sleep(0.1)
            if progress is not None:
                progress(1)
        return encoder.encode([token.text for token in tokens], tokens[0].kind)

    client = make_client(fake_engine(encoder))
    monkeypatch.setattr(encoder, "encode_tokens", slowly)
    assert client.post(path, json={**body, "timeout_ms": 250}).status_code == 504
    time.sleep(1.0)
    assert len(batches) < 6
