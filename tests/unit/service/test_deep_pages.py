"""Pages of snapshots so large that a search is narrowed: a deeper one finds passages late that rank early."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changing import passage_file
from client_lab import through
from fake_engine import FakeEncoder
from shard_lab import sharded

from drdecr.index import Snapshot
from indexer.build import build
from indexer.change import add
from service.client import Client
from service.engine import Engine, SearchableSnapshot, ServedIndex
from service.schemas import MAX_K

SEARCH = "/v1/indexes/demo/search"
QUERIES = ("w3 w50 w120 w7 w201", "w11 w90 w44", "w1 w2 w3 w150 w33 w60")
PASSAGES = 1_500


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two segments of random words, 11 in every other passage and 12 in the rest."""
    root, rng = tmp_path_factory.mktemp("deep"), np.random.default_rng(0)
    texts = {f"p{at}": " ".join(f"w{each}" for each in rng.integers(240, size=11 + at % 2)) for at in range(PASSAGES)}
    ids = list(texts)
    first, second = ids[: PASSAGES // 5 * 4], ids[PASSAGES // 5 * 4 :]
    build(FakeEncoder(), passage_file(root / "0.jsonl", {each: texts[each] for each in first}), root / "snapshot")
    add(root / "snapshot", FakeEncoder(), passage_file(root / "1.jsonl", {each: texts[each] for each in second}))
    return root / "snapshot"


@pytest.fixture(params=["one machine", "two shards"])
def snapshot(request: pytest.FixtureRequest, path: Path) -> Iterator[SearchableSnapshot]:
    if request.param == "one machine":
        with Snapshot.open(path) as opened:
            yield opened
    else:
        with sharded(path, 2, timeout_s=30.0) as (served, _):
            yield served


def serving(make_client: Any, encoder: FakeEncoder, snapshot: SearchableSnapshot) -> Any:
    return make_client(Engine(encoder, {"demo": ServedIndex("demo", snapshot)}), cursor_keep_s=0.1)


def pages(client: Any, **body: Any) -> list[list[str]]:
    """Ask for all pages, from that of a `cursor` on; more of them than hits would never end."""
    found: list[list[str]] = []
    while len(found) <= MAX_K:
        answer = client.post(SEARCH, json=body).json()
        found.append([hit["id"] for hit in answer["hits"]])
        body["cursor"] = answer["next_cursor"]
        if body["cursor"] is None:
            return found
    raise AssertionError("the pages do not end")


def joined(some: list[list[str]]) -> list[str]:
    return [each for page in some for each in page]


def deepest(snapshot: SearchableSnapshot, query: str) -> list[str]:
    (hits,) = snapshot.search(FakeEncoder().encode([query], "query"), MAX_K)
    return [hit.id for hit in hits]


def test_a_deeper_search_finds_better_passages_late(snapshot: SearchableSnapshot) -> None:
    """What the tests below are about."""
    encoded = FakeEncoder().encode(QUERIES, "query")
    shallow = [[hit.id for hit in hits] for hits in snapshot.search(encoded, 100)]
    assert any(hits != deepest(snapshot, query)[:100] for hits, query in zip(shallow, QUERIES, strict=True))


@pytest.mark.parametrize("k", [60, 100])
def test_pages_after_the_first_are_the_rest_of_one_deepest_search(
    make_client: Any, encoder: FakeEncoder, snapshot: SearchableSnapshot, k: int
) -> None:
    client = serving(make_client, encoder, snapshot)
    for query in QUERIES:
        whole = deepest(snapshot, query)
        first, *others = pages(client, query=query, k=k)
        assert len(whole) == MAX_K
        assert joined(others) == [each for each in whole if each not in first]
        assert sorted(joined([first, *others])) == sorted(whole)
        assert {len(page) for page in (first, *others[:-1])} == {k}


def test_a_client_gets_every_hit_of_the_deepest_search_once(
    make_client: Any, encoder: FakeEncoder, snapshot: SearchableSnapshot
) -> None:
    sdk = Client("http://testserver", transport=through(serving(make_client, encoder, snapshot)))
    got = [hit.id for hit in sdk.search_all("demo", QUERIES[0])]
    assert sorted(got) == sorted(deepest(snapshot, QUERIES[0]))


def test_pages_may_change_their_size_and_end_at_the_limit(
    make_client: Any, encoder: FakeEncoder, snapshot: SearchableSnapshot
) -> None:
    client, cursor, found = serving(make_client, encoder, snapshot), None, []
    for k in (7, 500, 1, 400, 300):
        answer = client.post(SEARCH, json={"query": QUERIES[0], "k": k, "cursor": cursor}).json()
        cursor = answer["next_cursor"]
        found.append([hit["id"] for hit in answer["hits"]])
    assert [len(page) for page in found] == [7, 500, 1, 400, 92]
    assert cursor is None
    assert sorted(joined(found)) == sorted(deepest(snapshot, QUERIES[0]))


def test_pages_under_a_filter_are_all_that_it_leaves(
    make_client: Any, encoder: FakeEncoder, snapshot: SearchableSnapshot
) -> None:
    client = serving(make_client, encoder, snapshot)
    found = pages(client, query=QUERIES[0], k=200, filter={"must": [{"field": "words", "eq": 12}]})
    assert [len(page) for page in found] == [200, 200, 200, 150]
    assert len(set(joined(found))) == PASSAGES // 2


def test_pages_end_without_a_shard_and_go_on_with_one_that_comes_back(
    make_client: Any, encoder: FakeEncoder, path: Path
) -> None:
    with sharded(path, 2, timeout_s=5.0) as (served, replicas):
        client, away = serving(make_client, encoder, served), {0}
        replicas.trouble = lambda shard, _: OSError("node died") if shard in away else 0.0
        alone = joined(pages(client, query=QUERIES[0], k=70))
        assert len(alone) == len(set(alone)) == PASSAGES // 5
        first = client.post(SEARCH, json={"query": QUERIES[0], "k": 70}).json()
        assert first["missing_shards"] == ["shard-1-of-2"]
        away.clear()
        others = pages(client, query=QUERIES[0], k=70, cursor=first["next_cursor"])
        found = [hit["id"] for hit in first["hits"]] + joined(others)
        assert len(found) == len(set(found)) == MAX_K
