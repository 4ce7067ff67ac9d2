"""`drdecr serve --ray` before two shards of two replicas: answers, a new version under load, a dead node."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from changing import passage_file
from ray_lab import add_node, kill_node, running_replicas
from service_process import WAIT_S, RunningService, running_service, serve_and_fail

from drdecr.encoder.load import load_encoder
from drdecr.index import Snapshot
from drdecr.index.backend import SearchParams
from drdecr.index.copies import VERSION_LENGTH, hold
from drdecr.index.place import open_place
from indexer.build import build
from indexer.change import add
from service.cluster.shard import ShardReplica, ShardSource, Terms

DEADLINE_S = 5.0
# What a request may ask for.
LONGEST_DEADLINE_S = 60.0
# What a machine that does much else may add to a deadline.
SLACK_S = 10.0
# Replicas start while two clients ask, on cores that another process of the tests shares.
START_S = 400.0
# Between an answer and the client's next query, or the clients would take what replicas need to start.
PAUSE_S = 0.5

pytestmark = pytest.mark.timeout(3 * START_S)


@pytest.fixture(scope="module")
def snapshot(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    encoder = load_encoder(tiny_student, threads=1)
    first = {f"p{at}": f"the {at}th passage of the first part about cats" for at in range(120)}
    build(encoder, passage_file(root / "first.jsonl", first), root / "snapshot")
    second = {f"q{at}": f"the {at}th passage of the second part about dogs" for at in range(40)}
    add(root / "snapshot", encoder, passage_file(root / "second.jsonl", second))
    return root / "snapshot"


@pytest.fixture(scope="module")
def front(cluster: Any, snapshot: Path, tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    log = tmp_path_factory.mktemp("front") / "log"
    options = ("--student", tiny_student, "--index", f"demo={snapshot}", "--ray", cluster.address)
    settings = {"SHARD_CPUS": "0.2", "FOLLOW_S": "0.2", "RETIRE_S": "1", "CURSOR_KEEP_S": "1", "THREADS": "4"}
    settings["SHARD_TIMEOUT_MS"] = str(1_000 * WAIT_S)
    with running_service(log, *options, "--shards", "2", "--replicas", "2", **settings) as service:
        yield service


class Load:
    """Two clients that ask again and again: what they got, by status, and how long the longest waited."""

    def __init__(self, url: str, deadline_s: float) -> None:
        self.url = url
        self.deadline_s = deadline_s
        self.statuses: Counter[str] = Counter()
        self.partial = 0
        self.longest_s = 0.0
        self.bodies: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    @contextmanager
    def going(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more answers have come."""
        wanted = self.statuses.total() + count
        wait_until(lambda: self.statuses.total() >= wanted)

    def _ask(self) -> None:
        body = {"query": "cats and dogs", "k": 200, "timeout_ms": round(1_000 * self.deadline_s)}
        with httpx.Client(base_url=self.url, timeout=4 * self.deadline_s) as client:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    answer = client.post("/v1/indexes/demo/search", json=body)
                    status = str(answer.status_code)
                except httpx.HTTPError as problem:
                    status = type(problem).__name__
                with self._lock:
                    self.longest_s = max(self.longest_s, time.monotonic() - began)
                    self.statuses[status] += 1
                    if status == "200":
                        self.partial += bool(answer.json()["missing_shards"])
                        self.bodies.append(answer.json())
                self._stop.wait(PAUSE_S)


def wait_until(done: Any) -> None:
    until = time.monotonic() + START_S
    while not done():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.2)


def version_of(service: RunningService) -> str:
    version: str = service.client.get("/v1/indexes/demo").json()["version"]
    return version


def test_answers_are_those_of_one_machine(front: RunningService, snapshot: Path, tiny_student: Path) -> None:
    query = load_encoder(tiny_student, threads=1).encode(["cats and dogs"], "query")
    with Snapshot.open(snapshot) as local:
        (hits,) = local.search(query, 50)
        version, passages = local.version, local.passages_of(hits)
    wishes = {"query": "cats and dogs", "k": 50, "explain": True, "complete": True}
    body = front.client.post("/v1/indexes/demo/search", json=wishes).json()
    assert [(hit["id"], hit["score"]) for hit in body["hits"]] == [(hit.id, round(hit.score, 6)) for hit in hits]
    assert [hit["text"] for hit in body["hits"]] == [passages[hit.id].text for hit in hits]
    assert all(hit["explanation"]["tokens"] for hit in body["hits"])
    assert (body["index_version"], body["partial"], body["missing_shards"]) == (version, False, [])
    assert front.client.get("/v1/indexes/demo/passages/q7").json()["text"].startswith("the 7th passage of the second")
    assert front.client.get("/v1/indexes/demo/passages/none").status_code == 404


def test_a_new_version_takes_over_without_a_mixed_or_lost_answer(
    front: RunningService, snapshot: Path, tiny_student: Path, tmp_path: Path
) -> None:
    before = version_of(front)
    with Load(front.url, LONGEST_DEADLINE_S).going() as load:
        load.wait_for_more(5)
        # Few, or the segments would be merged into one.
        third = {f"p{at}": "replaced, and now about moons" for at in range(10)}
        add(snapshot, load_encoder(tiny_student, threads=1), passage_file(tmp_path / "third.jsonl", third))
        wait_until(lambda: version_of(front) != before)
        load.wait_for_more(5)
    assert load.statuses.keys() == {"200"}
    assert load.partial == 0
    texts = {body["index_version"]: set[str]() for body in load.bodies}
    assert len(texts) == 2
    for body in load.bodies:
        # Every passage of the first part is a hit, and of one version.
        assert len(body["hits"]) == 160
        moons = sum("moons" in hit["text"] for hit in body["hits"])
        assert moons == (0 if body["index_version"] == before else 10)


def applications(index: str) -> dict[str, float]:
    """Return when each of an index's applications was last started."""
    from ray import serve

    found = serve.status().applications.items()
    return {name: one.last_deployed_time_s for name, one in found if name.startswith(f"drdecr-{index}-")}


def test_what_a_front_left_when_it_was_killed_goes_with_the_next_one(
    front: RunningService, cluster: Any, snapshot: Path, tiny_student: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "snapshot"
    shutil.copytree(snapshot, mine)
    options = ("--student", tiny_student, "--index", f"mine={mine}", "--ray", cluster.address, "--replicas", "1")
    settings = {"SHARD_CPUS": "0.1", "FOLLOW_S": "0.2", "RETIRE_S": "3600", "THREADS": "1"}
    with running_service(tmp_path / "log", *options, **settings) as service:
        before = applications("mine")
        passages = passage_file(tmp_path / "more.jsonl", {"more": "a passage more"})
        add(mine, load_encoder(tiny_student, threads=1), passages)
        wait_until(lambda: service.client.get("/v1/indexes/mine").json()["passages"] == 161)
        # Shards of the replaced version stay for `retire_s`.
        both = applications("mine")
        assert len(before) == 1 and before.items() < both.items() and len(both) == 2
        service.process.kill()
        service.process.wait()
    others = applications("demo")
    with running_service(tmp_path / "log", *options, **settings) as service:
        # What runs was not started again.
        wait_until(lambda: applications("mine").items() == both.items() - before.items())
        assert service.client.post("/v1/indexes/mine/search", json={"query": "cats"}).json()["hits"]
    # Other replicas are other shards.
    with running_service(tmp_path / "log", *options[:-1], "2", **settings):
        wait_until(lambda: len(applications("mine")) == 1 and not applications("mine").keys() & both.keys())
    assert applications("demo") == others


def test_shards_that_do_not_start_stay_nowhere(
    front: RunningService, cluster: Any, snapshot: Path, tiny_student: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "snapshot"
    shutil.copytree(snapshot, broken)
    damaged = max(
        (path for path in (broken / "segments").rglob("*") if path.is_file()), key=lambda one: one.stat().st_size
    )
    damaged.write_bytes(damaged.read_bytes()[:-1])
    options = ("--student", tiny_student, "--index", f"broken={broken}", "--ray", cluster.address, "--replicas", "1")
    done = serve_and_fail(*options, SHARD_CPUS="0.1")
    assert done.returncode == 1 and "do not start" in done.stderr
    wait_until(lambda: not applications("broken"))


def test_a_replica_removes_copies_that_nobody_reads_and_keeps_its_own(
    snapshot: Path, bucket: str, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRDECR_CACHE", str(tmp_path))
    place = open_place(f"{bucket}/served")
    for file in sorted(path for path in snapshot.rglob("*") if path.is_file()):
        place.put(file, file.relative_to(snapshot).as_posix())
    version = Snapshot.open(snapshot).version
    replaced = tmp_path / ("0" * VERSION_LENGTH)
    replaced.mkdir()
    os.close(hold(tmp_path, replaced.name))
    source = ShardSource(place.location, version, (0,), verify=True, threads=1, keep_copies_s=0.1)
    replica = ShardReplica(source)
    wait_until(lambda: not replaced.exists())
    assert (tmp_path / version[:VERSION_LENGTH] / "segments").is_dir()
    queries = load_encoder(tiny_student, threads=1).encode(["cats"], "query")
    (hits,) = asyncio.run(replica.search(Terms(version, WAIT_S), queries, 3, SearchParams(), None))
    assert len(hits) == 3


def test_a_node_that_dies_under_load_costs_no_answer(front: RunningService, cluster: Any) -> None:
    # The replaced version's are gone.
    wait_until(lambda: running_replicas(front_only=True) == 4)
    with Load(front.url, DEADLINE_S).going() as load:
        load.wait_for_more(10)
        kill_node(cluster)
        load.wait_for_more(10)
        add_node(cluster)
        wait_until(lambda: running_replicas(front_only=True) == 4)
        load.partial = 0
        load.wait_for_more(10)
    failed = load.statuses.total() - load.statuses["200"]
    assert failed <= 0.01 * load.statuses.total(), load.statuses
    assert load.longest_s < DEADLINE_S + SLACK_S
    # Whole again: both shards answer with both replicas.
    assert load.partial == 0
