from __future__ import annotations

import asyncio

import pytest
from click.testing import CliRunner

from service.commands import serve
from service.keys import KeyHash, KeyRing, new_key

KEY, HASH = new_key()
OTHER, _ = new_key()
SEARCH = "/v1/indexes/demo/search"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def guarded(make_client):
    # The fixture's own wait for readiness needs no key: health is open.
    return make_client(api_key_hashes=str(HASH))


def test_valid_key_opens_every_route(guarded):
    for _ in range(2):
        assert guarded.post(SEARCH, json={"query": "cat"}, headers=bearer(KEY)).status_code == 200
    assert guarded.get("/metrics", headers=bearer(KEY)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer(OTHER),
        bearer(KEY[:-1] + ("A" if KEY[-1] != "A" else "B")),
        bearer(KEY + "x"),
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer ünïcode".encode()},
        bearer(str(HASH)),
    ],
)
def test_anything_else_does_not(guarded, headers):
    for _ in range(2):
        answer = guarded.post(SEARCH, json={"query": "cat"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/v1/indexes", "/v1/info", "/metrics", "/v1/indexes/demo/passages/cat", "/nothing"])
def test_everything_but_health_and_pages_needs_a_key(guarded, path):
    assert guarded.get(path).status_code == 401


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/livez", "/readyz", "/health"])
def test_health_and_pages_need_none(guarded, path):
    assert guarded.get(path).status_code == 200


def test_body_of_an_unknown_client_is_not_read(guarded):
    async def ask() -> list[dict]:
        sent = []

        async def receive() -> dict:
            raise AssertionError("the body was read")

        async def send(message: dict) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": SEARCH, "headers": [], "query_string": b""}
        await guarded.app(scope, receive, send)
        return sent

    assert asyncio.run(ask())[0]["status"] == 401


def test_hash_does_not_hold_the_key_and_survives_its_text():
    assert KEY.split("_", 2)[2] not in str(HASH)
    assert KeyHash.parse(str(HASH)) == HASH
    assert HASH.matches(KEY)
    assert not HASH.matches(OTHER)


@pytest.mark.parametrize(
    "text", ["", "secret", str(HASH)[:-1], str(HASH) + "0", str(HASH).replace(":scrypt:16384:", ":scrypt:99999999:")]
)
def test_malformed_hash_is_refused(text):
    with pytest.raises(ValueError, match="new-key"):
        KeyHash.parse(text)


def test_each_key_is_hashed_once(monkeypatch):
    tried = []
    matches = KeyHash.matches
    monkeypatch.setattr(KeyHash, "matches", lambda self, key: tried.append(key) or matches(self, key))

    async def identify_all() -> list[str | None]:
        ring = KeyRing([HASH])
        wrong = KEY[:-2] + "__"
        return [await ring.identify(key) for key in (KEY, KEY, wrong, wrong, OTHER, "x")]

    assert asyncio.run(identify_all()) == [HASH.id, HASH.id, None, None, None, None]
    assert tried == [KEY, KEY[:-2] + "__"]


def test_new_key_command_prints_a_key_and_its_hash():
    result = CliRunner().invoke(serve, ["--new-key"])
    assert result.exit_code == 0
    key = next(word for word in result.output.split() if word.startswith("drdecr_"))
    stored = next(word for word in result.output.split() if word.startswith("DRDECR_API_KEY_HASHES="))
    assert KeyHash.parse(stored.partition("=")[2]).matches(key)
