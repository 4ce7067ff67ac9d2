"""Filters over HTTP: they reach the index, a batch keeps them apart, and none makes a server error."""

from __future__ import annotations

import json

import pytest
from fabricated_filters import FILTERS
from fake_engine import FakeSnapshot, fake_engine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drdecr.index.backend import SearchParams
from drdecr.index.filters import MAX_CONDITIONS, Filter, parse_filter

SEARCH = "/v1/indexes/demo/search"
BATCH = "/v1/search/batch"
RED = {"must": [{"field": "colour", "eq": "red"}]}
ONE = {"must": [{"field": "n", "eq": 1}]}
TRUE = {"must": [{"field": "n", "eq": True}]}


@pytest.fixture
def snapshot() -> FakeSnapshot:
    return FakeSnapshot()


@pytest.fixture
def client(make_client, encoder, snapshot):
    made = make_client(fake_engine(encoder, demo=snapshot))
    snapshot.filters.clear()
    snapshot.params.clear()
    return made


def test_filter_reaches_the_index(client, snapshot):
    for wanted in (RED, {}, None):
        assert client.post(SEARCH, json={"query": "cat", "filter": wanted}).status_code == 200
    assert client.post(SEARCH, json={"query": "cat"}).status_code == 200
    assert snapshot.filters == [parse_filter(RED), Filter(), None, None]


def test_effort_reaches_the_index(client, snapshot):
    client.post(SEARCH, json={"query": "cat", "params": {"effort": "thorough", "nprobe": 3}})
    assert snapshot.params == [SearchParams(nprobe=3, effort="thorough")]


def test_queries_of_a_batch_keep_their_filters(client, snapshot):
    filters = [RED, ONE, TRUE, RED, None, ONE]
    body = {"index": "demo", "queries": [{"query": "cat", "filter": wanted} for wanted in filters]}
    answer = client.post(BATCH, json=body).json()
    assert [result["status"] for result in answer["results"]] == [200] * 6
    wanted = [None if each is None else parse_filter(each) for each in filters]
    assert sorted(map(repr, snapshot.filters)) == sorted(map(repr, wanted))


def test_wrong_filter_of_a_batch_fails_alone(client):
    queries = [{"query": "cat", "filter": RED}, {"query": "cat", "filter": {"must": [{"field": "a"}]}}]
    good, bad = client.post(BATCH, json={"index": "demo", "queries": queries}).json()["results"]
    assert (good["status"], bad["status"]) == (200, 422)
    assert bad["error"]["errors"] == [{"pointer": "/filter/must/0", "message": "give exactly one of eq, in, range"}]


def test_refusal_names_the_place_and_echoes_nothing(client):
    wanted = {"must": [{"field": "a", "eq": 1}, {"should": [{"field": "b", "range": {"gte": "secret", "lt": 1}}]}]}
    answer = client.post(SEARCH, json={"query": "cat", "filter": wanted})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "/filter/must/1/should/0/range: both bounds must be texts, or both numbers"
    assert "secret" not in answer.text


def test_filter_beyond_its_limits_is_refused(client):
    deep = {"field": "a", "eq": 1}
    for _ in range(200):
        deep = {"must": [deep]}
    wide = {"should": [{"field": "a", "eq": number} for number in range(MAX_CONDITIONS + 1)]}
    for wanted in (deep, wide):
        answer = client.post(SEARCH, json={"query": "cat", "filter": wanted})
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == ["/filter"]


def test_filter_is_documented_with_examples_that_are_accepted(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("SearchRequest", "BatchQuery"):
        examples = schemas[name]["properties"]["filter"]["examples"]
        assert examples
        for example in examples:
            assert client.post(SEARCH, json={"query": "cat", "filter": example}).status_code == 200
    assert {"Filter", "Condition", "Bounds"} <= set(schemas)
    assert schemas["Condition"]["required"] == ["field"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=FILTERS)
def test_every_good_filter_is_accepted(client, wanted):
    assert client.post(SEARCH, json={"query": "cat", "filter": wanted}).status_code == 200


WORDS = st.sampled_from(
    [
        "must",
        "should",
        "must_not",
        "field",
        "eq",
        "in",
        "in_",
        "range",
        "gt",
        "gte",
        "lt",
        "lte",
        "condition",
        "",
        "a.b",
    ]
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63) - 1, 10**400])
    | st.floats()
    | st.text(max_size=5)
    | WORDS
)
ALMOST_FILTERS = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=4),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=ALMOST_FILTERS | st.fixed_dictionaries({"must": st.lists(ALMOST_FILTERS, max_size=3)}))
def test_no_filter_makes_a_server_error(client, wanted):
    answer = client.post(
        SEARCH, content=json.dumps({"query": "cat", "filter": wanted}), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (200, 422)


@pytest.mark.parametrize(
    "wanted",
    [
        r'{"must": [{"field": "\ud800", "eq": 1}]}',
        r'{"must": [{"field": "a", "eq": "\udfff"}]}',
        r'{"must": [{"field": "a", "\ud800": 1}]}',
        r'{"\ud800": []}',
        '{"must": [{"field": "a", "eq": 1e999}]}',
        '{"must": [{"field": "a", "eq": NaN}]}',
        '{"must": [{"field": "a", "eq": ' + "9" * 4_000 + "}]}",
    ],
)
def test_values_that_are_no_values_are_refused(client, wanted):
    answer = client.post(
        SEARCH, content=f'{{"query": "cat", "filter": {wanted}}}', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert len(answer.content) < 1_000
