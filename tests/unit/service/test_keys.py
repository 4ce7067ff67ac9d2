from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from drdecr.errors import UsageError
from service.commands import serve
from service.key_commands import keys
from service.key_file import KeyFile
from service.key_ring import KeyRing
from service.keys import SCOPES, KeyHash, new_key
from service.rate_limit import RateLimits

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
    "text",
    [
        "",
        "secret",
        str(HASH)[:-6],
        str(HASH) + "0",
        str(HASH) + ":x",
        str(HASH).replace(":scrypt:16384:", ":scrypt:99999999:"),
    ],
)
def test_malformed_hash_is_refused(text):
    with pytest.raises(ValueError):
        KeyHash.parse(text)


def test_each_key_is_hashed_once(monkeypatch):
    tried = []
    matches = KeyHash.matches
    monkeypatch.setattr(KeyHash, "matches", lambda self, key: tried.append(key) or matches(self, key))

    async def identify_all() -> list[KeyHash | None]:
        ring = KeyRing([HASH])
        wrong = KEY[:-2] + "__"
        return [await ring.identify(key) for key in (KEY, KEY, wrong, wrong, OTHER, "x")]

    assert asyncio.run(identify_all()) == [HASH, HASH, None, None, None, None]
    assert tried == [KEY, KEY[:-2] + "__"]


def test_new_key_command_prints_a_key_and_its_hash():
    result = CliRunner().invoke(serve, ["--new-key"])
    assert result.exit_code == 0
    key = next(word for word in result.output.split() if word.startswith("drdecr_"))
    stored = next(word for word in result.output.split() if word.startswith("DRDECR_API_KEY_HASHES="))
    assert KeyHash.parse(stored.partition("=")[2]).matches(key)
    assert "key of scope read" in result.output
    assert "drdecr keys create --file keys --scope admin" in result.output


def test_a_stored_key_without_a_scope_may_read():
    assert KeyHash.parse(str(HASH).removesuffix(":read")) == HASH


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/indexes", "read"),
        ("POST", "/v1/indexes/demo/search", "read"),
        ("POST", "/v1/search/batch", "read"),
        ("POST", "/v1/rerank", "read"),
        ("POST", "/v1/indexes/demo/passages", "write"),
        ("POST", "/v1/indexes/demo/builds", "write"),
        ("DELETE", "/v1/jobs/7", "write"),
        ("PUT", "/v1/aliases/demo", "admin"),
        ("POST", "/v1/indexes", "admin"),
        ("DELETE", "/v1/indexes/demo", "admin"),
        ("POST", "/v1/indexes/demo/search/more", "write"),
    ],
)
def test_each_route_needs_its_scope(make_client, method, path, scope):
    keys = {held: new_key(held) for held in SCOPES}
    client = make_client(api_key_hashes=",".join(str(stored) for _, stored in keys.values()))
    for held, (key, _) in keys.items():
        answer = client.request(method, path, headers=bearer(key), json={})
        assert (answer.status_code == 403) == (SCOPES.index(held) < SCOPES.index(scope)), (held, answer.text)
        if answer.status_code == 403:
            assert answer.json()["code"] == "forbidden"


def test_a_key_beyond_its_rate_waits_and_others_do_not(make_client):
    slow, other = new_key(rate=2), new_key()
    client = make_client(api_key_hashes=f"{slow[1]},{other[1]}")
    answers = [client.get("/v1/info", headers=bearer(slow[0])) for _ in range(20)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {(answer.json()["code"], answer.headers["retry-after"]) for answer in refused} == {("rate_limited", "1")}
    assert client.get("/v1/info", headers=bearer(other[0])).status_code == 200


def test_a_bucket_fills_at_its_rate():
    limits = RateLimits()
    assert [limits.wait_s("a", 2, now=0.0) for _ in range(3)] == [0, 0, 1]
    assert [limits.wait_s("a", 2, now=0.5) for _ in range(2)] == [0, 1]
    assert [limits.wait_s("a", 2, now=60.0) for _ in range(3)] == [0, 0, 1]
    assert [limits.wait_s("b", 0.1, now=0.0) for _ in range(2)] == [0, 10]


def test_a_key_made_and_revoked_while_the_service_runs(make_client, tmp_path, monkeypatch):
    monkeypatch.setattr("service.key_ring._LOOK_S", 0.0)
    path = tmp_path / "keys"
    client = make_client(keys=path)
    assert client.get("/v1/info").status_code == 401
    made = json.loads(CliRunner().invoke(keys, ["create", "--file", str(path), "--json", "--rate", "50"]).output)
    assert path.stat().st_mode & 0o777 == 0o600
    assert made["key"] not in path.read_text()
    assert client.get("/v1/info", headers=bearer(made["key"])).status_code == 200
    path.write_text(path.read_text() + "half a li")
    assert client.get("/v1/info", headers=bearer(made["key"])).status_code == 200
    path.write_text(path.read_text().removesuffix("half a li"))
    listed = CliRunner().invoke(keys, ["list", "--file", str(path)]).output
    assert (made["id"] in listed, "50 requests a second" in listed) == (True, True)
    assert CliRunner().invoke(keys, ["revoke", made["id"], "--file", str(path)]).exit_code == 0
    assert client.get("/v1/info", headers=bearer(made["key"])).status_code == 401
    assert isinstance(CliRunner().invoke(keys, ["revoke", made["id"], "--file", str(path)]).exception, UsageError)


def test_keys_made_at_the_same_time_are_all_kept(tmp_path):
    file = KeyFile(tmp_path / "keys")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_key()[1], range(8)))
        list(pool.map(KeyFile(file.path).add, made))
    assert set(file.read()) == {stored.id for stored in made}


def test_a_broken_key_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# clients\n{HASH}\nnonsense\n")
    with pytest.raises(UsageError, match="keys:3: not a key hash"):
        KeyFile(path).read()


def test_pages_of_other_origins_are_refused_unless_named(make_client, client):
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in client.options(SEARCH, headers=asked).headers
    named = make_client(cors_origins="https://shop.example", api_key_hashes=str(HASH))
    assert named.options(SEARCH, headers=asked).headers["access-control-allow-origin"] == "https://shop.example"
    other = named.options(SEARCH, headers={**asked, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
