"""Upload, build, switch, search: a real service and real workers, some of which are killed."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from service_process import WAIT_S, RunningService, running_service
from worker_process import running_worker, start_build, upload, wait_for_job

from drdecr.collections.directory import DataDirectory
from drdecr.collections.files import try_lock
from drdecr.collections.uploads import staged_uploads
from drdecr.index import Snapshot


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def service(tiny_student: Path, data: Path, tmp_path: Path) -> Iterator[RunningService]:
    options = ("--student", tiny_student, "--data", data)
    with running_service(tmp_path / "serve.log", *options, FOLLOW_S="0.05") as running:
        assert running.client.post("/v1/indexes", json={"name": "docs"}).status_code == 201
        yield running


def passages(thing: str, count: int) -> list[dict[str, object]]:
    return [{"id": f"{thing}-{i}", "text": f"All about {thing}, part {i}."} for i in range(count)]


def stored(data: Path) -> dict[str, str]:
    """Return all living passages of the newest version, failing on one that is there twice."""
    directory = DataDirectory(data)
    found: dict[str, str] = {}
    with Snapshot.open(directory.version_path("docs", directory.versions("docs")[-1]), verify=True) as snapshot:
        for segment in snapshot.segments:
            for passage in segment.store.read([at for at in range(len(segment)) if segment.holds(at)]):
                assert passage.id not in found
                found[passage.id] = passage.text
    return found


def test_upload_build_switch_search(tiny_student: Path, service: RunningService, data: Path, tmp_path: Path) -> None:
    client = service.client
    with running_worker(tmp_path / "worker.log", tiny_student, data) as worker:
        body = upload(client, "docs", [*passages("cats", 20), {"id": "", "text": "no id"}])
        assert (body["staged"], body["rejected"], body["errors"][0]["line"]) == (20, 1, 21)
        first = wait_for_job(client, start_build(client, "docs"))
        assert (first["state"], first["number"]) == ("succeeded", 1), first
        assert client.put("/v1/aliases/live", json={"index": "docs"}).status_code == 200
        upload(client, "docs", [*passages("cats", 20), *passages("dogs", 5)])
        upload(client, "docs", [{"id": "cats-0"}], "deletions")
        job = start_build(client, "docs")
        with client.stream("GET", f"{job}/events") as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            lines = list(events.iter_lines())
        states = [json.loads(after[6:])["state"] for line, after in pairwise(lines) if line == "event: state"]
        assert states[-1] == "succeeded"
        numbers = [int(line[4:]) for line in lines if line.startswith("id: ")]
        assert numbers == list(range(len(numbers))) and len(numbers) > 3
        with client.stream("GET", f"{job}/events", headers={"Last-Event-ID": str(numbers[-2])}) as events:
            assert [line for line in events.iter_lines() if line.startswith("id: ")] == [f"id: {numbers[-1]}"]
        ask = {"query": "all about dogs part 3", "k": 1}
        # The alias stays where it is; the index's own name answers from the newest version.
        assert client.post("/v1/indexes/live/search", json=ask).json()["hits"][0]["id"].startswith("cats")
        deadline = time.monotonic() + WAIT_S
        while client.get("/v1/indexes/docs").json()["number"] != 2:
            assert time.monotonic() < deadline
        assert client.post("/v1/indexes/docs/search", json=ask).json()["hits"][0]["id"].startswith("dogs")
        assert client.put("/v1/aliases/live", json={"index": "docs"}).json()["previous"]["number"] == 1
        assert client.post("/v1/indexes/live/search", json=ask).json()["hits"][0]["id"].startswith("dogs")
        assert client.get("/v1/indexes/live/passages/cats-0").status_code == 404
        last = client.get("/v1/indexes/docs").json()["stored"]["versions"][-1]
        assert (last["encoded"], last["deleted"], last["mode"]) == (5, 1, "incremental")
        unchanged = wait_for_job(client, start_build(client, "docs"))
        assert (unchanged["state"], unchanged["number"]) == ("succeeded", 2)
        listed = client.get("/v1/jobs", params={"index": "docs", "limit": 2}).json()["jobs"]
        assert [each["id"] for each in listed] == [unchanged["id"], job.removeprefix("/v1/jobs/")]
        assert client.get("/v1/jobs", params={"index": "none"}).json() == {"jobs": []}
        assert worker.stop() == 0


def test_killed_workers_lose_and_double_nothing(
    tiny_student: Path, service: RunningService, data: Path, tmp_path: Path
) -> None:
    client = service.client
    chance = random.Random(20)
    expected: dict[str, str] = {}
    killed = 0
    for turn in range(2):
        batch = passages(f"batch{turn}", 1_500)
        gone = [{"id": f"batch{turn - 1}-{i}"} for i in range(0, 300, 3)] if turn else []
        upload(client, "docs", batch)
        expected |= {str(record["id"]): str(record["text"]) for record in batch}
        if gone:
            upload(client, "docs", gone, "deletions")
            expected = {each: text for each, text in expected.items() if {"id": each} not in gone}
        job = start_build(client, "docs", **{"Idempotency-Key": f"turn {turn}"})
        for attempt in range(2):
            with running_worker(tmp_path / f"worker-{turn}-{attempt}.log", tiny_student, data) as worker:
                worker.wait_for("building")
                # The first kill comes at once: a fast machine builds in less than a random wait.
                time.sleep(turn * chance.uniform(0, 1.2))
                if attempt == 1:
                    assert worker.stop() == 0
                else:
                    worker.kill()
                killed += client.get(job).json()["state"] == "running"
            if client.get(job).json()["state"] != "running":
                break
        with (
            running_worker(tmp_path / f"a-{turn}.log", tiny_student, data) as one,
            running_worker(tmp_path / f"b-{turn}.log", tiny_student, data) as other,
        ):
            ended = wait_for_job(client, job)
            assert (ended["state"], ended["number"]) == ("succeeded", turn + 1), ended
            assert one.stop() == other.stop() == 0
        assert stored(data) == expected
    assert killed >= 1
    directory = DataDirectory(data)
    assert directory.versions("docs") == [1, 2]
    assert staged_uploads(directory, "docs") == []
    assert list((directory.path("docs") / "work").iterdir()) == []


def test_end_of_a_long_passage_is_found_and_named(
    tiny_student: Path, service: RunningService, data: Path, tmp_path: Path
) -> None:
    filler = " ".join(f"the package number {number} plays nothing at all ," for number in range(60))
    end = "which zebra plays the xylophone in the music player ?"
    long = {"id": "long", "title": "A long one", "text": f"{filler} {end}"}
    upload(service.client, "docs", [long, *passages("cats", 5)])
    with running_worker(tmp_path / "worker.log", tiny_student, data):
        assert wait_for_job(service.client, start_build(service.client, "docs"))["state"] == "succeeded"
    deadline = time.monotonic() + WAIT_S
    while service.client.get("/v1/indexes/docs").json().get("number") != 1:
        assert time.monotonic() < deadline
    wish = {"query": end, "k": 1, "explain": True, "highlight": True}
    (hit,) = service.client.post("/v1/indexes/docs/search", json=wish).json()["hits"]
    assert hit["id"] == "long"
    window, text = hit["window"], hit["text"]
    assert (window["field"], window["end"]) == ("text", len(text)) and window["start"] > len(text) // 2
    for match in hit["explanation"]["tokens"]:
        assert window["start"] <= match["passage"]["start"] < match["passage"]["end"] <= window["end"]
    texts = [f"{long['title']} {text}", end]
    ranked = service.client.post("/v1/rerank", json={"query": end, "texts": texts}).json()["results"]
    scores = {result["index"]: result["score"] for result in ranked}
    assert scores[0] == pytest.approx(hit["score"], abs=0.05)


def test_idempotency_key(service: RunningService) -> None:
    client = service.client
    key = {"Idempotency-Key": "tonight"}
    job = start_build(client, "docs", **key)
    assert start_build(client, "docs", **key) == job
    assert start_build(client, "docs") != job
    other = client.post("/v1/indexes/docs/builds", json={"mode": "full"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "job_conflict")
    assert len(client.get("/v1/jobs").json()["jobs"]) == 2
    assert client.post("/v1/indexes/none/builds", json={}).status_code == 404
    assert client.get("/v1/jobs/none").json()["code"] == "not_found"


def test_clients_that_follow_a_job_do_not_hold_up_a_stop(service: RunningService) -> None:
    job = start_build(service.client, "docs")
    with service.client.stream("GET", f"{job}/events") as events:
        lines = events.iter_lines()
        assert next(lines) == "event: state"
        assert service.stop() == 0
        assert "event: state" not in list(lines)


def test_cancel_and_retry(tiny_student: Path, service: RunningService, data: Path, tmp_path: Path) -> None:
    client = service.client
    upload(client, "docs", passages("cats", 5))
    waiting = start_build(client, "docs")
    assert client.delete(waiting).json()["state"] == "cancelled"
    assert client.delete(waiting).status_code == 202
    # Another build seems to run: the job waits for it, however often it may be tried.
    lock = try_lock(DataDirectory(data).path("docs") / "build.lock", create=True)
    assert lock is not None
    with running_worker(tmp_path / "worker.log", tiny_student, data, "--attempts", "1") as worker:
        job = start_build(client, "docs")
        assert "a build or a restore of 'docs' goes on" in worker.wait_for("waits")["reason"]
        cancelled = client.delete(job)
        assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
        after = start_build(client, "docs")
        while len([entry for entry in worker.entries() if entry.get("job") == after.removeprefix("/v1/jobs/")]) < 2:
            time.sleep(0.02)
        os.close(lock)
        ended = wait_for_job(client, after)
        assert (ended["state"], ended["number"]) == ("succeeded", 1)
        assert client.get(job).json()["state"] == "cancelled"
        refused = client.delete(after)
        assert (refused.status_code, refused.json()["code"]) == (409, "job_conflict")
    assert set(stored(data)) == {f"cats-{i}" for i in range(5)}


def test_service_killed_during_an_upload_has_staged_nothing_of_it(
    tiny_student: Path, service: RunningService, data: Path, tmp_path: Path
) -> None:
    upload(service.client, "docs", passages("cats", 3))
    host, port = service.url.removeprefix("http://").split(":")
    head = b"POST /v1/indexes/docs/passages HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\n"
    folder = DataDirectory(data).path("docs") / "uploads"
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as connection:
        connection.sendall(head + b"content-length: 1000000\r\n\r\n")
        connection.sendall(b'{"id": "half", "text": "half an upload"}\n' * 1_000)
        deadline = time.monotonic() + WAIT_S
        while not any(path.name.startswith(".") and path.stat().st_size for path in folder.iterdir()):
            assert time.monotonic() < deadline
        service.process.kill()
        service.process.wait()
    options = ("--student", tiny_student, "--data", data)
    with (
        running_service(tmp_path / "again.log", *options, FOLLOW_S="0.05") as again,
        running_worker(tmp_path / "worker.log", tiny_student, data),
    ):
        assert wait_for_job(again.client, start_build(again.client, "docs"))["state"] == "succeeded"
    assert set(stored(data)) == {f"cats-{i}" for i in range(3)}
    assert list(folder.iterdir()) == []
