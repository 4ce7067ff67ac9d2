"""Whatever is sent, the answer is a documented problem, never a 500."""

from __future__ import annotations

import json

import pytest
from fake_engine import FakeEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SEARCH = "/v1/indexes/demo/search"
JSON = {"Content-Type": "application/json"}


def assert_problem(answer, status: int, code: str) -> dict:
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["type"] == f"urn:drdecr:problem:{code}"
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


def test_unknown_route(client):
    assert_problem(client.get("/v2/nothing"), 404, "not_found")


def test_wrong_method_names_the_right_one(client):
    answer = client.get(SEARCH)
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_body_of_another_type(client, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    assert_problem(client.post(SEARCH, content=b'{"query": "cat"}', headers=headers), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "body",
    [b"{", b"nothing", b'{"query": "cat",}', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000],
    ids=["open", "word", "comma", "bytes", "deep list", "deep object", "long number"],
)
def test_body_that_is_not_json(client, body):
    answer = client.post(SEARCH, content=body, headers=JSON)
    assert answer.status_code == 400
    assert_problem(answer, 400, answer.json()["code"])


def test_missing_body(client):
    assert client.post(SEARCH, content=b"", headers=JSON).status_code == 422


@pytest.mark.parametrize("text", [r'"\ud800"', r'"a\udfff b"', r'"\ud83d"'])
def test_half_a_surrogate_pair_is_refused(client, text):
    answer = client.post(SEARCH, content=f'{{"query": {text}}}'.encode(), headers=JSON)
    assert_problem(answer, 422, "invalid_request")


def test_half_a_surrogate_pair_in_a_field_name_is_refused(client):
    body = assert_problem(
        client.post(SEARCH, content=rb'{"query": "cat", "\ud800": 1}', headers=JSON), 422, "invalid_request"
    )
    assert len(body["errors"]) == 1


def test_query_of_a_megabyte_is_refused_without_being_echoed(client):
    answer = client.post(SEARCH, json={"query": "x" * 2**20})
    assert_problem(answer, 422, "invalid_request")
    assert len(answer.content) < 1_000


def test_long_field_name_and_many_errors_make_a_short_answer(client):
    answer = client.post(SEARCH, json={"query": "cat", **{"x" * 5_000 + str(number): 1 for number in range(500)}})
    assert_problem(answer, 422, "invalid_request")
    assert len(answer.content) < 20_000


def test_declared_size_beyond_the_limit_is_refused_before_reading(make_client):
    client = make_client(max_body_bytes=1_024)
    assert_problem(client.post(SEARCH, json={"query": "x" * 2_000}), 413, "body_too_large")


def test_undeclared_size_beyond_the_limit_is_refused_while_reading(make_client):
    client = make_client(max_body_bytes=1_024)
    read = 0

    def endless():
        nonlocal read
        for _ in range(1_000):
            read += 1
            yield b" " * 512

    assert_problem(client.post(SEARCH, content=endless(), headers=JSON), 413, "body_too_large")


def test_body_at_the_limit_is_accepted(make_client):
    client = make_client(max_body_bytes=1_024)
    body = json.dumps({"query": "cat"}).encode().ljust(1_024)
    assert client.post(SEARCH, content=body, headers=JSON).status_code == 200


def test_query_limit_counts_characters(make_client):
    client = make_client(max_query_chars=3)
    assert client.post(SEARCH, json={"query": "日本語"}).status_code == 200
    assert_problem(client.post(SEARCH, json={"query": "日本語!"}), 422, "invalid_request")


def test_sane_request_id_is_echoed(client):
    assert client.get("/livez", headers={"X-Request-ID": "shop-42/a"}).headers["x-request-id"] == "shop-42/a"


@pytest.mark.parametrize("given_id", ["", "with space", "x" * 129, "ünder", "a\tb", '"><script>'])
def test_strange_request_id_is_replaced(client, given_id):
    answer = client.get("/livez", headers={"X-Request-ID": given_id.encode("utf-8")})
    assert len(answer.headers["x-request-id"]) == 32


def test_slow_request_is_logged_with_its_stages_and_a_quick_one_without(logged, make_client):
    # A thousand queries take more than a millisecond anywhere.
    body = {"index": "demo", "queries": [{"query": f"cat {number}"} for number in range(1_000)]}
    for slow_ms, level in ((1, "warning"), (600_000, "info"), (0, "info")):
        assert make_client(slow_ms=slow_ms).post("/v1/search/batch", json=body).status_code == 200
        entry = next(entry for entry in reversed(logged) if entry["event"] == "request")
        assert entry["log_level"] == level
        assert ({"queue", "tokenise", "encode", "search", "fetch"} <= entry.get("slow", {}).keys()) == (slow_ms == 1)


def test_search_that_comes_too_late_is_logged_as_slow(logged, make_client, encoder: FakeEncoder):
    client = make_client(slow_ms=1)
    encoder.gate.clear()
    assert client.post(SEARCH, json={"query": "cat", "timeout_ms": 30}).status_code == 504
    encoder.gate.set()
    entry = next(entry for entry in reversed(logged) if entry["event"] == "request")
    assert (entry["status"], entry["log_level"]) == (504, "warning") and "slow" in entry


def test_defect_is_a_500_that_tells_nothing_but_is_logged_with_its_request_id(logged, client, encoder: FakeEncoder):
    encoder.error = ZeroDivisionError("secret detail")
    answer = client.post(SEARCH, json={"query": "cat"})
    body = assert_problem(answer, 500, "internal_error")
    (defect,) = (entry for entry in logged if entry["event"] == "defect")
    assert (defect["request_id"], defect["exc_info"]) == (body["request_id"], True)
    assert "secret" not in answer.text
    encoder.error = None
    assert client.post(SEARCH, json={"query": "cat"}).status_code == 200


def test_answers_carry_security_headers(client):
    headers = client.post(SEARCH, json={"query": "cat"}).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "access-control-allow-origin" not in headers


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_no_bytes_make_a_server_error(client, body):
    assert client.post(SEARCH, content=body, headers=JSON).status_code in (400, 422)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(max_size=60), k=st.integers(-5, 1_005), explain=st.booleans())
def test_no_text_makes_a_server_error(client, query, k, explain):
    answer = client.post(SEARCH, json={"query": query, "k": k, "explain": explain, "highlight": True})
    assert answer.status_code in (200, 422)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("route", [SEARCH, "/v1/search/batch", "/v1/encode", "/v1/rerank"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("query", "queries", "texts", "k", "params", "index", "kind", "format"), JSON_VALUES),
    )
)
def test_no_json_makes_a_server_error(client, route, body):
    # Python writes NaN and Infinity, which JSON does not know and a careless client may send.
    assert client.post(route, content=json.dumps(body), headers=JSON).status_code in (200, 404, 422)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=30))
def test_no_passage_id_makes_a_server_error(client, name):
    encoded = "".join(f"%{byte:02x}" for byte in name.encode("utf-8"))
    assert client.get(f"/v1/indexes/demo/passages/{encoded}").status_code in (200, 404)
