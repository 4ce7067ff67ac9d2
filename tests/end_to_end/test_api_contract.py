"""The OpenAPI document is true, and nothing that is sent makes the service fail or hang."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance
from service_process import THINGS, WAIT_S, RunningService, running_service

EXAMPLES = 30
"""Requests of each operation that schemathesis makes up."""
MALFORMED = 10_000
NOT_CHECKED = [not_a_server_error, positive_data_acceptance]
"""A millisecond may be too short, and a cursor or a k too large for marks is refused for what no schema says."""
SEARCH = "/v1/indexes/demo/search"

schemathesis.serializer.alias("application/x-ndjson", "text/plain")


@pytest.fixture(scope="module")
def service(tiny_student: Path, snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("contract")
    sources = ["--index", f"demo={snapshot}", "--data", folder / "data"]
    with running_service(folder / "serve.log", "--student", tiny_student, *sources) as running:
        yield running


@pytest.fixture(scope="module")
def api(service: RunningService) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


def test_every_answer_is_the_documented_one(api: schemathesis.BaseSchema):
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 10
    for operation in operations:

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            answer = case.call()
            assert answer.status_code < 500 or (answer.status_code == 504 and "timeout_ms" in case.body)
            case.validate_response(answer, excluded_checks=NOT_CHECKED)

        ask()


def test_malformed_requests_get_an_answer_and_no_failure(service: RunningService):
    """Valid requests with bytes changed, cut out, doubled and swapped, on the wire."""
    chance = random.Random(0)
    host, port = service.url.removeprefix("http://").split(":")
    failed = []
    for number in range(MALFORMED):
        sent = _malformed(chance, number)
        with socket.create_connection((host, int(port)), timeout=WAIT_S) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            if connection.recv(12).startswith(b"HTTP/1.1 5"):
                failed.append(sent)
    assert failed == []
    assert service.client.get("/readyz").status_code == 200
    assert "drdecr_queue_admitted 0.0" in service.client.get("/metrics").text


def _malformed(chance: random.Random, number: int) -> bytes:
    values = [None, True, -1, 0, 2**63, 2**200, 1e308, "", "x" * 300, "\0", "é\ud800", [], {}, [[]], {"a": {}}]
    fields = ["query", "k", "filter", "cursor", "snippet", "highlight", "explain", "params", "timeout_ms", "texts"]
    body = {"query": f"all about {THINGS[number % len(THINGS)]}", "k": 3, "filter": {"must": []}}
    for field in chance.sample(fields, chance.randrange(3)):
        body[field] = chance.choice(values)
    path = chance.choice(
        [SEARCH, SEARCH, "/v1/search/batch", "/v1/encode", "/v1/rerank", "/v1/indexes/demo/passages/x"]
    )
    content = json.dumps(body if path == SEARCH else {"queries": [body, 1], "texts": ["a", body], **body}).encode()
    if chance.random() < 0.5:
        content = _damaged(chance, content)
    head = (
        f"{chance.choice(['POST', 'POST', 'POST', 'PUT', 'GET'])} {path} HTTP/1.1\r\nHost: x\r\n"
        f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode()
    return (_damaged(chance, head) if chance.random() < 0.3 else head) + content


def _damaged(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(changed))
        length = chance.randrange(1, 12)
        what = chance.randrange(4)
        if what == 0:
            changed[place] = chance.randrange(256)
        elif what == 1 and len(changed) > length:
            del changed[place : place + length]
        elif what == 2:
            changed[place:place] = changed[place : place + length]
        else:
            changed[place:place] = chance.randbytes(length)
        if not changed:
            break
    return bytes(changed)
