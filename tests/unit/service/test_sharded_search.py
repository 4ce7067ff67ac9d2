"""Shards that are slow, broken or gone: a second replica is asked, and an answer says what it lacks."""

from __future__ import annotations

import asyncio
import random
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from changing import ENCODER, passage_file
from fake_engine import FakeSnapshot, fake_engine
from shard_lab import Replicas, sharded

from drdecr.errors import SnapshotError
from drdecr.index.backend import Reach
from drdecr.index.manifest import FileRecord, Manifest, QuantizerRecord, SegmentRecord, StudentRecord, read_manifest
from drdecr.index.part import divide, read_version
from drdecr.index.place import open_place
from indexer.build import build
from indexer.change import add
from service.cluster.asking import Asking, Latencies, ShardGoneError
from service.cluster.backend import ShardedSnapshot
from service.cluster.shard import OtherVersionError, ShardReplica, ShardSource, Terms
from service.deadline import Deadline
from service.engine import Engine, ServedIndex
from service.problems import Problem
from service.schemas import SearchParams as Params
from service.searching import Answer, Wish, answer
from service.settings import Settings
from service.stopwatch import Stopwatch

WORDS = ("alpha", "beta", "gamma", "delta")
FOREVER_S = 60.0


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four segments of one passage each: by its tokens the first makes one of two shards."""
    root = tmp_path_factory.mktemp("sharded")
    for number, word in enumerate(WORDS):
        # Each is much smaller than the one before, or they would be merged.
        file = passage_file(root / f"{number}.jsonl", {f"p{number}": " ".join([word] * 3 ** (4 - number))})
        if number:
            add(root / "snapshot", ENCODER, file)
        else:
            build(ENCODER, file, root / "snapshot")
    return root / "snapshot"


@pytest.fixture
def shards(path: Path) -> Iterator[tuple[ShardedSnapshot, Replicas]]:
    with sharded(path, 2, timeout_s=1.0) as served:
        yield served


def ids(snapshot: ShardedSnapshot, **more: Any) -> set[str]:
    (hits,) = snapshot.search(ENCODER.encode(["alpha beta"], "query"), 10, **more)
    return {hit.id for hit in hits}


def test_a_failed_call_is_sent_once_more(shards: tuple[ShardedSnapshot, Replicas]) -> None:
    snapshot, replicas = shards
    replicas.trouble = lambda shard, call: OSError("node died") if call == 1 else 0.0
    assert ids(snapshot) == {"p0", "p1", "p2", "p3"}
    assert replicas.calls == [2, 2]
    assert [asking.retried for asking in snapshot.asking] == [1, 1]


def test_a_slow_call_is_overtaken_by_a_hedge(shards: tuple[ShardedSnapshot, Replicas]) -> None:
    snapshot, replicas = shards
    replicas.trouble = lambda shard, call: FOREVER_S if (shard, call) == (1, 1) else 0.0
    assert ids(snapshot) == {"p0", "p1", "p2", "p3"}
    assert replicas.calls == [1, 2]
    assert [asking.hedged for asking in snapshot.asking] == [0, 1]
    # What nobody waits for any more is called off.
    assert replicas.cancelled == 1


def test_a_shard_that_is_gone_is_named(shards: tuple[ShardedSnapshot, Replicas]) -> None:
    snapshot, replicas = shards
    replicas.trouble = lambda shard, call: OSError("node died") if shard == 1 else 0.0
    reach = Reach()
    found = ids(snapshot, reach=reach)
    assert found == {"p0"}
    assert reach.missing == {"shard-2-of-2"}
    assert replicas.calls[1] == 2
    with pytest.raises(Problem, match="shard-2-of-2") as refused:
        ids(snapshot)
    assert (refused.value.status_code, refused.value.code) == (503, "shards_unavailable")


def test_an_answer_waits_no_longer_than_its_deadline(shards: tuple[ShardedSnapshot, Replicas]) -> None:
    snapshot, replicas = shards
    replicas.trouble = lambda shard, call: FOREVER_S if shard == 0 else 0.0
    reach = Reach(time.perf_counter() + 0.2)
    assert ids(snapshot, reach=reach) == {"p1", "p2", "p3"}
    assert reach.missing == {"shard-1-of-2"}
    assert replicas.cancelled == 2


def test_no_shard_at_all_is_no_empty_answer(shards: tuple[ShardedSnapshot, Replicas]) -> None:
    snapshot, replicas = shards
    replicas.trouble = lambda shard, call: OSError("node died")
    with pytest.raises(Problem, match="shard-1-of-2, shard-2-of-2"):
        ids(snapshot, reach=Reach())


def test_a_passage_is_not_found_only_where_every_shard_says_so(shards: tuple[ShardedSnapshot, Replicas]) -> None:
    snapshot, replicas = shards
    replicas.trouble = lambda shard, call: OSError("node died") if shard == 1 else 0.0
    held = snapshot.manifest.segments[snapshot.shares[0][0]].directory
    number = int(held.rpartition("/")[2]) - 1
    found = snapshot.passage(f"p{number}")
    assert found is not None and found.text.startswith(WORDS[number])
    with pytest.raises(Problem, match="shard-2-of-2"):
        snapshot.passage("no such id")


def test_a_hit_whose_shard_went_away_is_left_out(shards: tuple[ShardedSnapshot, Replicas]) -> None:
    snapshot, replicas = shards
    (hits,) = snapshot.search(ENCODER.encode(["alpha beta"], "query"), 10)
    replicas.trouble = lambda shard, call: OSError("node died") if shard == 0 else 0.0
    reach = Reach()
    passages = snapshot.passages_of(hits, reach=reach)
    assert passages.keys() == {"p1", "p2", "p3"}
    assert reach.missing == {"shard-1-of-2"}


def test_metrics_tell_what_became_of_calls(
    shards: tuple[ShardedSnapshot, Replicas], make_client: Any, encoder: Any
) -> None:
    snapshot, replicas = shards
    replicas.trouble = lambda shard, call: OSError("node died") if shard == 1 else 0.0
    ids(snapshot, reach=Reach())
    client = make_client(Engine(fake_engine(encoder).encoder, {"demo": ServedIndex("demo", FakeSnapshot())}))
    assert "drdecr_shard_calls{" not in client.get("/metrics").text
    client.app.state.service.loaded = Engine(encoder, {"demo": ServedIndex("demo", snapshot)})
    shown = client.get("/metrics").text
    for kind, count in {"asked": 2.0, "hedged": 0.0, "retried": 1.0, "missing": 1.0}.items():
        assert f'drdecr_shard_calls{{index="demo",kind="{kind}"}} {count}' in shown


def test_a_replica_of_another_version_refuses(path: Path) -> None:
    manifest = read_manifest(path)
    replica = ShardReplica(ShardSource(str(path), manifest.version, (0,), verify=False, threads=1))
    with pytest.raises(OtherVersionError):
        asyncio.run(replica.passages(Terms("another", 1.0), ["p0"]))


def test_a_replica_opens_an_earlier_version_that_is_kept(path: Path) -> None:
    generations = sorted((path / "generations").glob("*.json"))
    old = read_manifest(path, name=f"generations/{generations[-1].name}")
    replica = ShardReplica(ShardSource(str(path), old.version, (0, 1), verify=True, threads=1))
    assert asyncio.run(replica.passages(Terms(old.version, 5.0), ["p0", "p3"])).keys() == {"p0"}
    with pytest.raises(SnapshotError, match="has no version 000000000000 any more"):
        read_version(open_place(str(path)), "0" * 64)


def test_hedges_follow_what_answers_take() -> None:
    latencies = Latencies()
    first = latencies.p95_s
    for _ in range(10):
        for milliseconds in range(1, 101):
            latencies.add(milliseconds / 1_000)
    assert latencies.p95_s < first
    assert latencies.p95_s == pytest.approx(0.095, abs=0.006)


def test_quick_calls_of_another_kind_bring_no_hedge_forward() -> None:
    asking = Asking()
    slow_s = 0.02

    async def answer(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def asked() -> None:
        for _ in range(40):
            await asking.ask("search", lambda: answer(slow_s), 5.0)
            for _ in range(8):
                await asking.ask("explain", lambda: answer(0), 5.0)

    asyncio.run(asked())
    assert asking.latencies["search"].p95_s >= slow_s
    assert asking.latencies["explain"].p95_s < asking.latencies["search"].p95_s


class LeapingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock leaps to what is due next, so that no sleep takes time."""

    def __init__(self) -> None:
        self.now = 0.0
        loop = self

        class Leaping(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                loop.now += timeout or 0.0
                return super().select(0)

        super().__init__(Leaping())

    def time(self) -> float:
        return self.now


def test_many_quick_explanations_leave_hedges_to_a_twentieth_of_the_searches() -> None:
    asking, chance = Asking(), random.Random(7)
    searches, explanations, sent = 600, 20, 0

    async def search() -> None:
        nonlocal sent
        sent += 1
        await asyncio.sleep(chance.uniform(0.01, 0.1))

    async def asked() -> None:
        for _ in range(searches):
            await asking.ask("search", search, 5.0)
            for _ in range(explanations):
                await asking.ask("explain", lambda: asyncio.sleep(0.001), 5.0)

    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        runner.run(asked())
    assert 0.02 < (sent - searches) / searches < 0.08


def test_a_shard_is_asked_by_what_its_calls_of_that_method_take(shards: tuple[ShardedSnapshot, Replicas]) -> None:
    snapshot, _ = shards
    answered(snapshot, complete=True)
    assert [asking.latencies.keys() for asking in snapshot.asking] == [{"search", "passages", "explain"}] * 2


def answered(snapshot: ShardedSnapshot, *, complete: bool, timeout_ms: int = 5_000) -> Answer:
    wish = Wish("alpha beta", 10, highlight=True, explain=False, params=Params(), snippet=20, complete=complete)
    query = ENCODER.encode([wish.query], "query")
    return answer(ENCODER, ServedIndex("demo", snapshot), wish, query, Deadline(timeout_ms), Stopwatch())


@pytest.mark.parametrize("trouble", [OSError("node died"), FOREVER_S])
def test_a_shard_that_explains_nothing_leaves_hits_without_marks(
    shards: tuple[ShardedSnapshot, Replicas], trouble: float | Exception
) -> None:
    snapshot, replicas = shards
    # Each shard is searched and read; from its third call on, the second one is gone.
    replicas.trouble = lambda shard, call: trouble if shard == 1 and call > 2 else 0.0
    began = time.monotonic()
    found = answered(snapshot, complete=False, timeout_ms=600)
    assert time.monotonic() - began < FOREVER_S / 2
    assert {hit.id for hit in found.hits} == {"p0", "p1", "p2", "p3"}
    assert found.partial
    assert found.missing == ("shard-2-of-2",)
    # One question, sent once more, for all three of its hits.
    assert replicas.calls[1] == 4
    marked = [hit.id for hit in found.hits if hit.highlights is not None]
    assert set(marked) <= {"p0"}
    assert all(hit.snippet is not None for hit in found.hits)


@pytest.mark.parametrize("gone", [0, 1])
def test_hits_of_other_shards_keep_their_marks(shards: tuple[ShardedSnapshot, Replicas], gone: int) -> None:
    snapshot, replicas = shards
    replicas.trouble = lambda shard, call: OSError("node died") if shard == gone and call > 2 else 0.0
    found = answered(snapshot, complete=False)
    of_shard: list[set[str | None]] = [{"p0"}, {"p1", "p2", "p3"}]
    assert {hit.id for hit in found.hits if hit.highlights is not None} == of_shard[1 - gone]
    assert found.missing == (f"shard-{gone + 1}-of-2",)


def test_a_shard_that_explains_nothing_refuses_a_complete_answer(shards: tuple[ShardedSnapshot, Replicas]) -> None:
    snapshot, replicas = shards
    replicas.trouble = lambda shard, call: OSError("node died") if shard == 1 and call > 2 else 0.0
    with pytest.raises(Problem, match="shard-2-of-2") as refused:
        answered(snapshot, complete=True)
    assert refused.value.status_code == 503


def test_what_keeps_failing_is_given_up_with_its_reason() -> None:
    async def fail() -> None:
        raise OSError("connection refused")

    with pytest.raises(ShardGoneError, match="OSError: connection refused"):
        asyncio.run(Asking().ask("search", fail, 5.0))


def manifest_of(tokens: list[int]) -> Manifest:
    file = FileRecord(size_bytes=0, sha256="0" * 64)
    codec = {"name": "fp16", "bits": 16, "code_bytes": 2, "unit": False}
    segments = [
        SegmentRecord(
            directory=f"s/{at}", files={"x": file}, quantizer="q", passages=1, tokens=each, sentence_lists=0
        )
        for at, each in enumerate(tokens)
    ]
    return Manifest(
        format_version=1,
        written_by="a test",
        student=StudentRecord(
            name="", fingerprint="", dim=1, sentence_dim=0, sentence_weight=0, query_length=1, passage_length=1
        ),
        quantizers=[QuantizerRecord(directory="q", files={"x": file}, lists=1, codec=codec)],  # type: ignore[arg-type]
        segments=segments,
    )


@pytest.mark.parametrize("parts", [1, 3, 4, 100])
def test_shards_hold_every_segment_once_and_about_alike(parts: int) -> None:
    tokens = [50, 10, 40, 30, 20, 10, 60, 20]
    shares = divide(manifest_of(tokens), parts)
    assert sorted(at for share in shares for at in share) == list(range(8))
    assert len(shares) == min(parts, 8)
    assert all(share == sorted(share) for share in shares)
    loads = [sum(tokens[at] for at in share) for share in shares]
    assert max(loads) <= max(*tokens, 1.34 * sum(tokens) / len(shares))


def test_an_answer_names_missing_shards_and_a_complete_one_is_refused(make_client: Any, encoder: Any) -> None:
    snapshot = FakeSnapshot()
    snapshot.missing = {"shard-2-of-2"}
    engine = Engine(fake_engine(encoder).encoder, {"demo": ServedIndex("demo", snapshot)})
    client = make_client(engine)
    answer = client.post("/v1/indexes/demo/search", json={"query": "cat"})
    assert answer.status_code == 200
    assert (answer.json()["partial"], answer.json()["missing_shards"]) == (True, ["shard-2-of-2"])
    refused = client.post("/v1/indexes/demo/search", json={"query": "cat", "complete": True})
    assert (refused.status_code, refused.json()["code"]) == (503, "shards_unavailable")
    assert "shard-2-of-2" in refused.json()["detail"] and refused.headers["Retry-After"]
    items = [{"query": "cat"}, {"query": "dog", "complete": True}]
    batch = client.post("/v1/search/batch", json={"index": "demo", "queries": items}).json()["results"]
    assert [item["status"] for item in batch] == [200, 503]
    assert batch[0]["missing_shards"] == ["shard-2-of-2"]


def test_the_service_imports_neither_ray_nor_fsspec() -> None:
    program = (
        "import sys, service.process, service.app, service.commands, drdecr.cli, indexer.commands; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'ray', 'fsspec', 's3fs'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ray": "auto", "data": "data"}, "--ray serves fixed snapshots"),
        ({"index": "demo=s3://bucket/x"}, "which only a cluster serves"),
        ({"ray": "auto", "replicas": 3, "max_replicas": 2}, "max_replicas 2 is less than replicas 3"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**{"student": "student", "index": "demo=snapshot", **given})


def test_a_url_is_a_place_to_serve_from() -> None:
    settings = Settings(student="student", index="demo=s3://bucket/wiki", ray="auto", shards=4)  # type: ignore[arg-type]
    assert settings.index[0].location == "s3://bucket/wiki"
    assert settings.cluster is not None and settings.cluster.shards == 4


def test_asking_is_over_when_time_is() -> None:
    async def never() -> None:
        await asyncio.sleep(FOREVER_S)

    async def asked() -> float:
        began = time.monotonic()
        with pytest.raises(ShardGoneError, match="no answer within"):
            await Asking().ask("search", never, 0.15)
        return time.monotonic() - began

    assert asyncio.run(asked()) < FOREVER_S / 2
