"""Queries of concurrent requests are encoded together, and a query asked again is not encoded again."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from fake_engine import FakeEncoder
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics
from service.query_cache import QueryCache

SEARCH = "/v1/indexes/demo/search"


def metric(client, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def ask_behind_a_busy_worker(
    client, encoder: FakeEncoder, pool: ThreadPoolExecutor, texts: list[str]
) -> list[Future]:
    """Keep the only worker busy, and return once all other texts wait for it."""
    encoder.gate.clear()
    asked = [pool.submit(client.post, SEARCH, json={"query": "busy"})]
    assert encoder.entered.acquire(timeout=150)
    asked += [pool.submit(client.post, SEARCH, json={"query": text, "k": 1}) for text in texts]
    while metric(client, "drdecr_queue_admitted") < len(asked):
        pass
    return asked


def test_queries_that_wait_are_encoded_together_and_each_gets_its_own_answer(make_client, encoder):
    client = make_client(threads=1)
    texts = ["moon", "cat", "pictures", "slashes"]
    with ThreadPoolExecutor(8) as pool:
        asked = ask_behind_a_busy_worker(client, encoder, pool, texts)
        encoder.gate.set()
        answers = [each.result().json()["hits"][0]["id"] for each in asked[1:]]
    assert answers == ["dog", "cat", "image", "a/b?c"]
    assert [len(batch) for batch in encoder.batches] == [1, 4]
    assert metric(client, "drdecr_encode_batch_queries_bucket", le="4.0") == 2


def test_a_batch_holds_no_more_tokens_than_the_budget_with_padding(make_client, encoder):
    client = make_client(threads=1, batch_tokens=6)
    texts = ["one", "one two", "three", "four", "one two three", " ".join("abcdefgh")]
    with ThreadPoolExecutor(8) as pool:
        asked = ask_behind_a_busy_worker(client, encoder, pool, texts)
        encoder.gate.set()
        assert {each.result().status_code for each in asked} == {200}
    assert sorted(text for batch in encoder.batches for text in batch) == sorted(["busy", *texts])
    padded = [len(batch) * max(len(text.split()) for text in batch) for batch in encoder.batches if len(batch) > 1]
    assert padded
    assert max(padded) <= 6


def test_an_encoder_that_fails_fails_every_query_of_its_batch_and_nothing_after_it(make_client, encoder):
    client = make_client(threads=1)
    with ThreadPoolExecutor(8) as pool:
        asked = ask_behind_a_busy_worker(client, encoder, pool, ["moon", "cat"])
        encoder.error = RuntimeError("broken")
        encoder.gate.set()
        assert [each.result().status_code for each in asked] == [500, 500, 500]
    encoder.error = None
    assert client.post(SEARCH, json={"query": "moon"}).status_code == 200


def failing_once(encoder: FakeEncoder, error: BaseException):
    """Return a tokenizer that fails at its first call."""
    errors = [error]

    def tokenize(texts, kind):
        if errors:
            raise errors.pop()
        return FakeEncoder.tokenize(encoder, texts, kind)

    return tokenize


class PanicError(BaseException):
    """As a panic of the tokenizer's Rust: no Exception."""


@pytest.mark.parametrize("error", [RuntimeError("broken"), PanicError("broken")])
def test_a_tokenizer_that_fails_ends_no_worker(make_client, encoder, monkeypatch, error):
    client = make_client(threads=1)
    monkeypatch.setattr(encoder, "tokenize", failing_once(encoder, error))
    assert client.post(SEARCH, json={"query": "moon", "timeout_ms": 60_000}).status_code == 500
    assert client.post(SEARCH, json={"query": "moon", "timeout_ms": 60_000}).status_code == 200


def test_queries_behind_a_batch_that_is_not_tokenised_are_still_encoded(make_client, encoder, monkeypatch):
    monkeypatch.setattr("service.query_encoding.MAX_QUERIES", 2)
    client = make_client(threads=1, timeout_ms=60_000)
    with ThreadPoolExecutor(8) as pool:
        asked = ask_behind_a_busy_worker(client, encoder, pool, ["moon", "cat", "pictures", "slashes"])
        monkeypatch.setattr(encoder, "tokenize", failing_once(encoder, RuntimeError("broken")))
        encoder.gate.set()
        statuses = [each.result().status_code for each in asked]
    assert (statuses[0], sorted(statuses[1:])) == (200, [200, 200, 500, 500])


def test_a_query_asked_again_is_not_encoded_again(client, encoder):
    first, again = (client.post(SEARCH, json={"query": "the moon"}).json() for _ in range(2))
    assert encoder.texts == ["the moon"]
    assert again["hits"] == first["hits"]
    assert metric(client, "drdecr_query_cache_total", outcome="hit") == 1
    assert metric(client, "drdecr_query_cache_bytes") > 0


def test_without_room_every_query_is_encoded(make_client, encoder):
    client = make_client(query_cache_bytes=0)
    for _ in range(2):
        client.post(SEARCH, json={"query": "the moon"})
    assert encoder.texts == ["the moon"] * 2


@pytest.mark.parametrize("linger_ms", [0.0, 5.0])
def test_lingering_changes_no_answer(make_client, linger_ms):
    client = make_client(linger_ms=linger_ms)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.post, SEARCH, json={"query": word}) for word in ["moon", "cat", "pictures"] * 8]
        found = [each.result().json()["hits"][0]["id"] for each in asked]
    assert found == ["dog", "cat", "image"] * 8


def test_the_cache_stays_within_its_bytes_and_drops_what_was_used_least_recently():
    metrics = Metrics()
    entry = FakeEncoder().encode(["cat"], "query")
    cache = QueryCache(10_000, metrics)
    for number in range(5):
        cache.put(str(number), entry)
        assert cache.get("0") is entry
    assert metrics.query_cache_bytes.collect()[0].samples[0].value <= 10_000
    cache.put("many", FakeEncoder().encode([" ".join("abcdefgh")], "query"))
    for number in range(5, 20):
        cache.put(str(number), entry)
    assert cache.get("1") is None
    assert cache.get("19") is entry


def test_an_entry_larger_than_the_cache_is_not_kept():
    cache = QueryCache(2_000, Metrics())
    encoded = FakeEncoder().encode(["cat"], "query")
    cache.put("x" * 1_000, encoded)
    assert cache.get("x" * 1_000) is None


def test_a_kept_query_does_not_keep_its_batch():
    encoded = FakeEncoder().encode(["the moon", "cat"], "query")
    own = encoded.select(0, 1).copy()
    assert not np.shares_memory(own.vectors, encoded.vectors)
    assert np.array_equal(own.vectors, encoded.tokens_of(0))
