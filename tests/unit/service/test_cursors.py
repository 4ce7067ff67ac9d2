"""Pages of one ranking."""

from __future__ import annotations

import asyncio
import base64
import json
import weakref

import pytest
from fake_engine import FakeSnapshot, fake_engine

from drdecr.corpus import Passage
from service.cursors import MAX_CURSOR_CHARS, MAX_VERSIONS, Cursor, PinnedIndexes
from service.engine import ServedIndex
from service.problems import Problem

SEARCH = "/v1/indexes/demo/search"
PASSAGES = [Passage(f"p{number:02}", f"cat {'word ' * (number % 7)} number {number}") for number in range(40)]


@pytest.fixture
def client(make_client, encoder):
    return make_client(fake_engine(encoder, demo=FakeSnapshot(PASSAGES)))


def pages(client, **body) -> list[dict]:
    found = [client.post(SEARCH, json=body).json()]
    while found[-1]["next_cursor"]:
        found.append(client.post(SEARCH, json={**body, "cursor": found[-1]["next_cursor"]}).json())
    return found


def ids(page: dict) -> list[str]:
    return [hit["id"] for hit in page["hits"]]


@pytest.mark.parametrize("k", [1, 7, 10, 39, 40, 100])
def test_pages_together_are_the_whole_ranking(client, k):
    whole = ids(client.post(SEARCH, json={"query": "cat word", "k": 1_000}).json())
    found = [passage_id for page in pages(client, query="cat word", k=k) for passage_id in ids(page)]
    assert found == whole


def test_a_page_may_be_of_another_size_and_may_be_marked(client):
    first = client.post(SEARCH, json={"query": "cat word", "k": 5}).json()
    cursor = first["next_cursor"]
    second = client.post(SEARCH, json={"query": "cat word", "k": 9, "cursor": cursor, "highlight": True}).json()
    whole = ids(client.post(SEARCH, json={"query": "cat word", "k": 14}).json())
    assert ids(first) + ids(second) == whole
    assert second["hits"][0]["highlights"]


@pytest.mark.parametrize("change", [{"query": "dog"}, {"params": {"nprobe": 3}}, {"filter": {"must": []}}])
def test_a_cursor_of_another_question_is_refused(client, change):
    cursor = client.post(SEARCH, json={"query": "cat", "k": 2}).json()["next_cursor"]
    answer = client.post(SEARCH, json={"query": "cat", "k": 2, "cursor": cursor, **change})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/cursor"


@pytest.mark.parametrize(
    "cursor", ["", "?", "x" * 8_192, "x" * 8_193, "é", base64.urlsafe_b64encode(b"{}").decode(), "eyJ2IjoxfQ", "null"]
)
def test_a_text_that_is_no_cursor_is_refused(client, cursor):
    answer = client.post(SEARCH, json={"query": "cat", "cursor": cursor})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/cursor"


@pytest.mark.parametrize(
    "wrong",
    [{"shown": ""}, {"shown": "gA"}, {"shown": "é"}, {"shown": [1]}, {"shown": None}, {"question": 1}, {"more": 1}],
)
def test_a_cursor_that_was_tampered_with_does_no_harm(client, wrong):
    cursor = client.post(SEARCH, json={"query": "cat", "k": 2}).json()["next_cursor"]
    content = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**content, **wrong}).encode()).decode().rstrip("=")
    assert client.post(SEARCH, json={"query": "cat", "cursor": forged}).status_code == 422


def switch(client, snapshot: FakeSnapshot) -> None:
    """Put another version in place, as following the disk or an alias does."""
    service = client.app.state.service
    service.loaded = fake_engine(service.engine.encoder, demo=snapshot)


def test_a_cursor_goes_on_with_its_own_version_after_a_switch(client):
    first = client.post(SEARCH, json={"query": "cat word", "k": 20}).json()
    whole = ids(client.post(SEARCH, json={"query": "cat word", "k": 40}).json())
    switch(client, FakeSnapshot([Passage("new", "cat word")], "v2"))
    second = client.post(SEARCH, json={"query": "cat word", "k": 20, "cursor": first["next_cursor"]}).json()
    assert second["index_version"] == first["index_version"]
    assert ids(first) + ids(second) == whole
    assert ids(client.post(SEARCH, json={"query": "cat word"}).json()) == ["new"]


def test_a_cursor_whose_version_is_gone_says_so(make_client, encoder):
    client = make_client(fake_engine(encoder, demo=FakeSnapshot(PASSAGES)), cursor_keep_s=0)
    cursor = client.post(SEARCH, json={"query": "cat", "k": 2}).json()["next_cursor"]
    switch(client, FakeSnapshot(PASSAGES, "v2"))
    while client.app.state.service.pinned.count:
        client.get("/livez")
    answer = client.post(SEARCH, json={"query": "cat", "k": 2, "cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (410, "cursor_expired")


def test_a_pinned_version_is_released_after_its_last_cursor():
    async def pin_and_wait() -> None:
        pinned = PinnedIndexes(0.05)
        index, current = (
            ServedIndex("demo", FakeSnapshot(PASSAGES)),
            ServedIndex("demo", FakeSnapshot(PASSAGES, "v2")),
        )
        held = weakref.ref(index)
        for _ in range(3):
            pinned.pin("demo", index)
            await asyncio.sleep(0.02)
        del index
        assert pinned.find("demo", current, "v1").snapshot.version == "v1"
        while pinned.count:
            await asyncio.sleep(0.01)
        assert held() is None
        with pytest.raises(Problem, match="changed"):
            pinned.find("demo", current, "v1")

    asyncio.run(pin_and_wait())


def test_only_the_latest_versions_of_a_name_are_kept():
    async def change_often() -> None:
        pinned = PinnedIndexes(60)
        for number in range(MAX_VERSIONS + 3):
            pinned.pin("demo", ServedIndex("demo", FakeSnapshot(PASSAGES[:1], f"v{number}")))
            pinned.pin("other", ServedIndex("other", FakeSnapshot(PASSAGES[:1], "v0")))
        assert pinned.count == MAX_VERSIONS + 1
        current = ServedIndex("demo", FakeSnapshot(PASSAGES[:1], "now"))
        assert pinned.find("demo", current, f"v{MAX_VERSIONS + 2}")
        with pytest.raises(Problem):
            pinned.find("demo", current, "v0")

    asyncio.run(change_often())


@pytest.mark.parametrize("shown", [{0}, {2**40, 0, 1, 128}, set(range(127, 2**35, 2**35 // 999))])
def test_a_cursor_is_read_back_exactly(shown: set[int]):
    cursor = Cursor(version="f" * 64, question="0" * 16, shown=frozenset(shown))
    assert Cursor.parse(str(cursor)) == cursor
    assert len(str(cursor)) <= MAX_CURSOR_CHARS


def test_a_forged_cursor_that_has_seen_everything_ends(client):
    cursor = client.post(SEARCH, json={"query": "cat", "k": 2}).json()["next_cursor"]
    forged = Cursor.parse(cursor).model_copy(update={"shown": frozenset(range(1_000))})
    answer = client.post(SEARCH, json={"query": "cat", "k": 2, "cursor": str(forged)}).json()
    assert (answer["hits"], answer["next_cursor"]) == ([], None)
