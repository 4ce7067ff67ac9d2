"""What a key may do is judged by what the router will do: no way of writing a path gets round it."""

from __future__ import annotations

import re

import pytest

from service.app import create_server
from service.keys import SCOPES, new_key
from service.settings import Settings

KEYS = {held: new_key(held) for held in SCOPES}
HASHES = ",".join(str(stored) for _, stored in KEYS.values())
CONTROLS = ["%0A", "%0D", "%00", "%09", "%1F", "%7F", "%C2%85"]
OPERATIONS = [
    (method.upper(), path)
    for path, operations in create_server(Settings(student="s", index="demo=s", threads=1)).openapi()["paths"].items()
    for method in operations
]


@pytest.fixture
def guarded(make_client, tmp_path):
    return make_client(api_key_hashes=HASHES, data=tmp_path / "data")


def bearer(held: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[held][0]}"}


def example(path: str) -> str:
    """Put names in the place of a path's parameters."""
    return re.sub(r"\{\w+\}", "demo", path)


def test_a_line_feed_at_the_end_opens_no_route(guarded):
    assert len(OPERATIONS) > 20
    for method, path in OPERATIONS:
        for held in SCOPES:
            answer = guarded.request(method, example(path) + "%0A", json={"name": "new"}, headers=bearer(held))
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path, held)
    listed = guarded.get("/v1/indexes", headers=bearer("read")).json()["indexes"]
    assert [index["name"] for index in listed] == ["demo"]


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("path", ["/v1/indexes{}", "/v1/indexes/de{}mo", "/v1/indexes/{}/passages/cat", "/livez{}"])
def test_a_control_character_is_in_no_path(guarded, client, control, path):
    for asked, headers in ((guarded, {}), (guarded, bearer("admin")), (client, {})):
        answer = asked.get(path.format(control), headers=headers)
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (problem["status"], problem["code"], problem["detail"]) == (
            404,
            "not_found",
            "No path holds a control character.",
        )


def test_the_route_that_was_chosen_decides_where_the_gate_misreads_the_path(guarded, monkeypatch):
    monkeypatch.setattr("service.gate.needed_scope", lambda *_: "read")
    for method, path, held in [
        ("POST", "/v1/indexes", "write"),
        ("DELETE", "/v1/indexes/demo", "write"),
        ("PUT", "/v1/aliases/demo", "write"),
        ("POST", "/v1/indexes/demo/builds", "read"),
        ("DELETE", "/v1/jobs/7", "read"),
    ]:
        answer = guarded.request(method, path, json={"name": "new"}, headers=bearer(held))
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
    assert guarded.post("/v1/indexes", json={"name": "new"}, headers=bearer("admin")).status_code == 201
