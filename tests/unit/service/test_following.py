"""A newer generation of an index serves without a restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fabricated_vectors import encoded, make_snapshot
from fake_engine import PASSAGES, FakeSnapshot

from drdecr.corpus import Passage
from drdecr.errors import SnapshotCorruptError
from drdecr.index.tuning import TUNING, Tuning, read_tuning, remove_tuning, write_tuning
from service.engine import Engine, ServedIndex, serve_snapshot
from service.settings import IndexSource

NEW = (*PASSAGES, Passage("new", "A kettle that sings"))


def eventually(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Disk:
    """What the next look at the disk finds."""

    def __init__(self) -> None:
        self.found: ServedIndex | Exception | None = None
        self.looks = 0

    def newer(self) -> ServedIndex | None:
        self.looks += 1
        found, self.found = self.found, None
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def client(make_client, encoder, disk):
    engine = Engine(encoder, {"demo": ServedIndex("demo", FakeSnapshot(), disk.newer)})
    return make_client(engine, follow_s=0.01)


def version(client) -> str:
    return client.get("/v1/indexes/demo").json()["version"]


def test_newer_generation_is_searched(client, disk):
    query = {"query": "a kettle that sings", "k": 1}
    assert client.post("/v1/indexes/demo/search", json=query).json()["hits"][0]["id"] != "new"
    disk.found = ServedIndex("demo", FakeSnapshot(NEW, "v2"), disk.newer)
    eventually(lambda: version(client) == "v2")
    answer = client.post("/v1/indexes/demo/search", json=query).json()
    assert (answer["hits"][0]["id"], answer["index_version"]) == ("new", "v2")
    checks = {check["name"]: check["reason"] for check in client.get("/readyz").json()["checks"]}
    assert checks["index:demo"] == "v2, 5 passages"
    assert 'drdecr_index_switches_total{index="demo",outcome="served"} 1.0' in client.get("/metrics").text


def test_request_in_flight_ends_on_the_generation_it_began_with(client, disk, encoder):
    encoder.gate.clear()
    answers = []
    request = threading.Thread(
        target=lambda: answers.append(client.post("/v1/indexes/demo/search", json={"query": "cat", "k": 9}).json())
    )
    request.start()
    assert encoder.entered.acquire(timeout=150)
    disk.found = ServedIndex("demo", FakeSnapshot(NEW[3:], "v2"), disk.newer)
    eventually(lambda: version(client) == "v2")
    encoder.gate.set()
    request.join(30)
    assert answers[0]["index_version"] == "v1"
    assert {hit["id"] for hit in answers[0]["hits"]} == {passage.id for passage in PASSAGES}


def test_generation_that_cannot_be_served_leaves_the_old_one(client, disk, logged):
    disk.found = SnapshotCorruptError("tokens are damaged")
    eventually(lambda: any(entry["event"] == "index not followed" for entry in logged))
    assert version(client) == "v1"
    assert client.get("/readyz").status_code == 200
    looks = disk.looks
    time.sleep(0.1)
    assert disk.looks == looks
    assert 'drdecr_index_switches_total{index="demo",outcome="failed"} 1.0' in client.get("/metrics").text


def test_service_that_is_not_to_follow_never_looks(make_client, encoder, disk):
    client = make_client(Engine(encoder, {"demo": ServedIndex("demo", FakeSnapshot(), disk.newer)}), follow_s=0)
    time.sleep(0.05)
    assert version(client) == "v1"
    assert disk.looks == 0


def test_tuned_setting_is_followed_like_a_newer_generation(tmp_path: Path) -> None:
    with make_snapshot(tmp_path, encoded([3] * 400, 16)) as snapshot:
        path, version, spec = snapshot.path, snapshot.version, snapshot.spec
    index = serve_snapshot(IndexSource(name="demo", path=path), spec, verify=False)
    assert index.newer() is None
    tuning = Tuning(
        version=version,
        passages=400,
        k=10,
        nprobe=2,
        candidates=20,
        wanted_recall=0.9,
        recall=0.9,
        queries=20,
        cpu_ms=1.0,
    )
    write_tuning(path, tuning)
    tuned = index.newer()
    assert tuned is not None and tuned.newer() is None
    assert (tuned.snapshot.version, read_tuning(path)) == (version, tuning)
    (path / TUNING).write_text("broken")
    with pytest.raises(SnapshotCorruptError, match="--reset"):
        tuned.newer()
    remove_tuning(path)
    assert tuned.newer() is not None
