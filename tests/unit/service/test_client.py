"""The client against the app itself, its OpenAPI document, and services that refuse, break and vanish."""

from __future__ import annotations

import inspect
import json
import time
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from client_lab import through
from fake_engine import FakeSnapshot, fake_engine

from drdecr.corpus import Passage
from drdecr.errors import UsageError
from service.client import AsyncClient, Client, Retries, ServiceError
from service.client.call import Call, Nothing, read, request_options
from service.client.calls import index, info, passage, search
from service.client.retries import retry_after_s
from service.keys import new_key
from service.schemas import SearchParams, SearchRequest
from service.schemas_data import TargetBody

PUBLIC = [name for name in dir(Client) if not name.startswith("_") and name != "close"]
SEARCHED = {"hits": [], "took_ms": {}, "index": "demo", "index_version": "v1", "warnings": []}


@pytest.fixture
def sdk(client) -> Client:
    return Client("http://testserver", transport=through(client))


def test_both_clients_have_the_same_methods():
    asynchronous = [name for name in dir(AsyncClient) if not name.startswith("_") and name != "aclose"]
    assert asynchronous == PUBLIC
    for name in PUBLIC:
        one, other = (inspect.signature(getattr(each, name)).parameters for each in (Client, AsyncClient))
        assert list(one.values()) == list(other.values())


def test_search_answers_typed_hits(sdk):
    found = sdk.search("demo", "editor for pictures", k=2, highlight=True, params={"effort": "fast"})
    assert found.hits[0].id == "image"
    assert found.hits[0].highlights[0].field == "text"


def test_every_other_method_answers(sdk):
    assert [result.hits[0].id for result in sdk.search_batch(["cat", {"query": "moon"}], index="demo").results] == [
        "cat",
        "dog",
    ]
    assert len(sdk.encode(["the cat"]).embeddings[0].vectors) == 2
    assert sdk.rerank("moon", ["cat", "moon"]).results[0].index == 1
    assert sdk.passage("demo", "a/b?c").text == "Nobody reads slashes in ids."
    assert [each.name for each in sdk.indexes()] == ["demo"]
    assert sdk.index("demo").version == "v1"
    assert sdk.info().student.name == "fake"
    assert sdk.health().status == "ready"


def test_all_pages_are_yielded(make_client, encoder):
    passages = [Passage(str(number), f"cat {number}") for number in range(25)]
    client = make_client(fake_engine(encoder, demo=FakeSnapshot(passages)))
    sdk = Client("http://testserver", transport=through(client))
    found = [hit.id for hit in sdk.search_all("demo", "cat", page=10)]
    assert sorted(found, key=int) == [passage.id for passage in passages]


def test_a_problem_becomes_an_error_with_its_code_and_request_id(sdk):
    with pytest.raises(ServiceError, match="No index 'other'") as caught:
        sdk.search("other", "cat")
    assert (caught.value.status, caught.value.code) == (404, "index_not_found")
    assert len(caught.value.request_id) == 32


def test_the_key_is_sent(make_client):
    key, stored = new_key()
    transport = through(make_client(api_key_hashes=str(stored)))
    assert Client("http://testserver", key=key, transport=transport).indexes()
    with pytest.raises(ServiceError) as caught:
        Client("http://testserver", transport=transport).indexes()
    assert caught.value.code == "unauthorized"


def test_a_refused_request_is_sent_again_after_what_the_service_asked_for(ask, pauses):
    refused = httpx.Response(429, headers={"Retry-After": "7"})
    found, asked = ask([refused, refused, httpx.Response(200, json=SEARCHED)], "search", "demo", "cat")
    assert found.hits == []
    assert len(asked) == 3
    assert pauses == [0.0, 7.0, 7.0]


def test_pauses_grow_and_end(ask, pauses):
    with pytest.raises(ServiceError) as caught:
        ask([httpx.Response(503)], "info", retries=Retries(attempts=3, first_s=1.0))
    assert caught.value.status == 503
    assert [1 / 2 <= pause / whole <= 1 for pause, whole in zip(pauses[1:], (1, 2, 4), strict=True)] == [True] * 3


def test_a_pause_longer_than_anybody_waits_ends_the_attempts(ask, pauses):
    with pytest.raises(ServiceError):
        ask([httpx.Response(503, headers={"Retry-After": "3600"})], "info")
    assert pauses == [0.0]


@pytest.mark.parametrize("status", [400, 404, 422, 500, 504])
def test_other_failures_are_not_sent_again(ask, pauses, status):
    with pytest.raises(ServiceError) as caught:
        ask([httpx.Response(status, text="<html>")], "info")
    assert (caught.value.status, pauses) == (status, [0.0])


def test_a_broken_connection_is_tried_again(ask, pauses):
    _, asked = ask([httpx.ConnectError("refused"), httpx.Response(200, json=SEARCHED)], "search", "demo", "cat")
    assert len(asked) == 2
    with pytest.raises(ServiceError, match="is the service running") as caught:
        ask([httpx.ConnectError("refused")], "search", "demo", "cat")
    assert caught.value.status is None


def test_an_answer_that_takes_too_long_is_not_asked_for_twice(ask, pauses):
    with pytest.raises(ServiceError, match="ReadTimeout"):
        ask([httpx.ReadTimeout("slow")], "search", "demo", "cat")
    assert pauses == [0.0]


def test_health_is_answered_while_not_ready(ask, pauses):
    body = {"status": "not_ready", "checks": [{"name": "encoder", "ok": False, "reason": "not loaded yet"}]}
    found, asked = ask([httpx.Response(503, json=body)], "health")
    assert (found.status, len(asked)) == ("not_ready", 1)


def test_key_goes_without_the_line_break_of_its_file_and_a_broken_one_is_not_shown():
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["Authorization"])
        return httpx.Response(200, json=SEARCHED)

    with Client("http://x", key="drdecr_secret\n", transport=httpx.MockTransport(answer)) as sdk:
        sdk.search("demo", "x")
    assert sent == ["Bearer drdecr_secret"]
    for broken in ("drdecr_gehe\u00efm", "one\ntwo"):
        with pytest.raises(UsageError, match="holds characters that no key has") as caught:
            Client("http://x", key=broken)
        assert broken not in str(caught.value)


def test_address_without_a_scheme_is_told_at_once(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    with Client("localhost:8080") as sdk, pytest.raises(ServiceError, match="begins with http:// or https://"):
        sdk.create_index("docs")
    assert sum(pauses) == 0


def test_batch_takes_the_same_params_as_a_search():
    sent: list[object] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json={"results": [], "took_ms": {"total": 1.0}, "partial": False})

    with Client("http://x", transport=httpx.MockTransport(answer)) as sdk:
        sdk.search_batch([{"query": "x", "params": SearchParams(effort="fast"), "index": None}])
    assert sent == [{"queries": [{"query": "x", "params": {"effort": "fast"}}]}]


def test_another_server_at_the_address_is_named(ask):
    with pytest.raises(ServiceError, match="check the address"):
        ask([httpx.Response(200, text="<html>hello</html>")], "info")


def test_retry_after_may_be_a_date():
    late = httpx.Response(429, headers={"Retry-After": formatdate(time.time() + 60, usegmt=True)})
    assert 50 < retry_after_s(late) <= 60
    assert retry_after_s(httpx.Response(429, headers={"Retry-After": "soon"})) == 0


def test_names_cannot_leave_their_place_in_the_path():
    assert request_options(index("../x"))["url"] == "/v1/indexes/..%2Fx"
    assert request_options(passage("a", "b c?d"))["url"] == "/v1/indexes/a/passages/b%20c%3Fd"


@pytest.mark.parametrize(
    "ask",
    [
        lambda sdk: sdk.search("demo", "\ud800"),
        lambda sdk: sdk.search("demo", "cat", filter={"must": [{"field": "a", "eq": float("nan")}]}),
        lambda sdk: sdk.index("\ud800"),
        lambda sdk: sdk.start_build("demo", key="é"),
    ],
)
def test_what_cannot_be_sent_is_told(ask):
    with (
        Client("http://x", transport=httpx.MockTransport(lambda _: httpx.Response(500))) as sdk,
        pytest.raises(UsageError, match="sent"),
    ):
        ask(sdk)


@pytest.mark.parametrize("name", [".", ".."])
def test_name_made_of_dots_steps_nowhere(name):
    asked: list[tuple[str, bytes]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.raw_path))
        return httpx.Response(404, json={"code": "not_found", "detail": "no"})

    with Client("http://x", transport=httpx.MockTransport(answer)) as sdk:
        for drop in (lambda: sdk.drop_archive("demo", name), lambda: sdk.drop_index(name)):
            with pytest.raises(ServiceError):
                drop()
    written = name.replace(".", "%2E")
    assert asked == [
        ("DELETE", f"/v1/indexes/demo/snapshots/{written}".encode()),
        ("DELETE", f"/v1/indexes/{written}".encode()),
    ]


@pytest.mark.parametrize("passage_id", ["./notes/a.txt#0", "a/../b", "../b", ".", "..", "a//b", "..."])
def test_id_reaches_the_service_as_it_is(passage_id):
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        return httpx.Response(200, json={"id": passage_id, "title": "", "text": "t", "metadata": {}})

    with Client("http://x", transport=httpx.MockTransport(answer)) as sdk:
        assert sdk.passage("demo", passage_id).id == passage_id
    assert unquote(asked[0].decode()) == f"/v1/indexes/demo/passages/{passage_id}"


@pytest.mark.parametrize(("timeout_ms", "waits_s"), [(None, 30), (1_000, 30), (60_000, 75)])
def test_client_waits_as_long_as_the_service_may_take(timeout_ms, waits_s):
    waited: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        waited.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, json=SEARCHED)

    with Client("http://x", transport=httpx.MockTransport(answer)) as sdk:
        sdk.search("demo", "x", timeout_ms=timeout_ms)
    assert waited == [waits_s]


def test_wait_that_was_too_short_is_named_as_such():
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("timed out")

    with (
        Client("http://x", transport=httpx.MockTransport(answer), retries=0) as sdk,
        pytest.raises(ServiceError, match="longer than the client waits; give more `timeout_s`"),
    ):
        sdk.search("demo", "x")


def test_search_has_every_field_of_a_request():
    given = set(inspect.signature(Client.search).parameters) - {"self", "index"}
    assert given == set(SearchRequest.model_fields)


@pytest.mark.parametrize("complete", [True, False])
def test_complete_is_sent_where_it_is_wanted(complete):
    bodies: list[dict[str, object]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json=SEARCHED)

    with Client("http://x", transport=httpx.MockTransport(answer)) as sdk:
        list(sdk.search_all("demo", "x", complete=complete))
    assert [body.get("complete") for body in bodies] == [True if complete else None]


def test_fields_that_a_newer_service_adds_do_no_harm():
    answer = httpx.Response(200, json={**SEARCHED, "new": 1}, request=httpx.Request("GET", "http://x"))
    assert read(search("demo", "x"), answer).index == "demo"


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "search": ("demo", "q"),
    "search_all": ("demo", "q"),
    "search_batch": (["q"],),
    "encode": (["q"],),
    "rerank": ("q", ["t"]),
    "passage": ("demo", "id"),
    "index": ("demo",),
    "create_index": ("demo",),
    "drop_index": ("demo",),
    "alias": ("demo",),
    "switch_alias": ("demo", "docs", 2),
    "rollback_alias": ("demo",),
    "drop_alias": ("demo",),
    "upload_passages": ("demo", []),
    "upload_deletions": ("demo", []),
    "start_build": ("demo",),
    "job": ("id",),
    "cancel_job": ("id",),
    "wait": ("id",),
    "archives": ("demo",),
    "archive": ("demo", 2),
    "drop_archive": ("demo", "id"),
    "restore": ("demo", "000001-00000000"),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "switch_alias": {"if_match": '"1"', "if_none_match": "*"},
    "drop_alias": {"if_match": '"1"'},
    "jobs": {"index": "demo"},
    "restore": {"of": "docs"},
}


def test_every_call_is_a_documented_operation_with_the_documented_answer(client):
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    sent: list[Call[Any]] = []
    fields: dict[str, Any] = {name: [] for name in ("hits", "indexes", "aliases", "jobs", "snapshots")}
    fields |= {"next_cursor": None, "alias": "demo", "previous": TargetBody(index="docs", number=1)}

    class Noting(Client):
        def _send(self, call: Call[Any]) -> Any:
            sent.append(call)
            return call.answer.model_construct(**fields, state="succeeded")

    noting = Noting()
    for name in PUBLIC:
        result = getattr(noting, name)(*ARGUMENTS.get(name, ()), **OPTIONS.get(name, {}))
        assert name != "search_all" or list(result) == []
    paths = {
        tuple(path.replace("{alias}", "demo").replace("{name}", "demo").replace("{id}", "id").split("/")): operations
        for path, operations in document["paths"].items()
    }
    for call in sent:
        operation = paths[tuple(call.path.split("/"))][call.method.lower()]
        answered = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
        if call.answer is Nothing:
            assert "content" not in answered
        else:
            model = model_of(answered)
            assert model in [each.__name__ for each in call.answer.__mro__]
            assert set(schemas[model]["properties"]) | set(call.from_headers) == set(call.answer.model_fields)
        assert set(call.from_headers.values()) <= set(answered.get("headers", ()))
        parameters = {(each["in"], each["name"]) for each in operation.get("parameters", ())}
        assert {("query", name) for name in call.query} <= parameters
        assert {("header", name.lower()) for name in call.headers} <= parameters
        if call.body is not None:
            assert set(call.body) <= set(schemas[model_of(operation["requestBody"])]["properties"])
        if call.lines is not None:
            assert request_options(call)["headers"]["Content-Type"] in operation["requestBody"]["content"]
    assert request_options(info()) == {"method": "GET", "url": "/v1/info"}


def model_of(described: dict[str, Any]) -> str:
    return described["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
