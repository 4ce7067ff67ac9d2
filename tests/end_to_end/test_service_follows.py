"""`drdecr serve` while other processes change what it serves."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest
from service_process import COMMAND, WAIT_S, RunningService, environment, running_service

SEARCH = "/v1/indexes/demo/search"


def drdecr(*arguments: str | Path) -> None:
    subprocess.run([*COMMAND, *map(str, arguments)], check=True, env=environment(), stdout=subprocess.DEVNULL)


def passage_file(path: Path, thing: str, count: int) -> Path:
    records = ({"id": f"{thing}-{i}", "text": f"All about {thing}, part {i}."} for i in range(count))
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def snapshot(tiny_student: Path, tmp_path: Path) -> Path:
    passages = passage_file(tmp_path / "cats.jsonl", "cats", 30)
    drdecr("index", "build", "--student", tiny_student, "--passages", passages, "--out", tmp_path / "snapshot")
    return tmp_path / "snapshot"


def version(service: RunningService) -> str:
    return str(service.client.get("/v1/indexes/demo").json()["version"])


def wait_for_another(service: RunningService, before: str) -> str:
    deadline = time.monotonic() + WAIT_S
    while (now := version(service)) == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return now


def top(service: RunningService, query: str) -> str:
    return str(service.client.post(SEARCH, json={"query": query, "k": 1}).json()["hits"][0]["id"])


def open_files(service: RunningService, part: str) -> int:
    return sum(part in mapped.path for mapped in psutil.Process(service.process.pid).memory_maps())


def test_changes_serve_without_a_restart_and_without_a_failed_request(
    tiny_student: Path, snapshot: Path, tmp_path: Path
) -> None:
    options = ("--student", tiny_student, "--index", f"demo={snapshot}")
    with running_service(tmp_path / "log", *options, FOLLOW_S="0.05", CURSOR_KEEP_S="1") as service:
        stop = threading.Event()
        statuses: Counter[int] = Counter()
        versions: set[str] = set()

        def ask() -> None:
            with httpx.Client(base_url=service.url, timeout=WAIT_S) as client:
                while not stop.is_set():
                    answer = client.post(SEARCH, json={"query": "all about cats", "k": 5, "explain": True})
                    statuses[answer.status_code] += 1
                    versions.add(answer.json()["index_version"])

        askers = [threading.Thread(target=ask) for _ in range(2)]
        for asker in askers:
            asker.start()
        try:
            first = version(service)
            dogs = passage_file(tmp_path / "dogs.jsonl", "dogs", 10)
            drdecr("index", "add", snapshot, "--student", tiny_student, "--passages", dogs)
            second = wait_for_another(service, first)
            assert top(service, "all about dogs part 7").startswith("dogs")
            drdecr("index", "delete", snapshot, "--ids", ",".join(f"dogs-{i}" for i in range(10)), "--keep", "0")
            third = wait_for_another(service, second)
            assert top(service, "all about dogs part 7").startswith("cats")
            assert service.client.get("/v1/indexes/demo/passages/dogs-3").status_code == 404
        finally:
            stop.set()
            for asker in askers:
                asker.join()
        assert set(statuses) == {200}
        assert {first, second, third} >= versions
        # What the old generations alone needed is neither mapped nor on disk any more.
        assert not (snapshot / "segments/000002").exists()
        deadline = time.monotonic() + WAIT_S
        while open_files(service, "000002"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert service.stop() == 0


def test_damaged_or_foreign_generation_is_logged_and_the_old_one_answers(
    tiny_student: Path, another_student: Path, snapshot: Path, tmp_path: Path
) -> None:
    options = ("--student", tiny_student, "--index", f"demo={snapshot}")
    with running_service(tmp_path / "log", *options, FOLLOW_S="0.05", CURSOR_KEEP_S="1") as service:
        before = version(service)
        passages = passage_file(tmp_path / "more.jsonl", "more", 3)
        build = ("index", "build", "--student", another_student, "--passages", passages, "--out", snapshot, "--force")
        drdecr(*build)
        deadline = time.monotonic() + WAIT_S
        while not (failed := [entry for entry in service.entries() if entry["event"] == "index not followed"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "24 token" in failed[0]["error"] and "16 token" in failed[0]["error"]
        assert version(service) == before
        assert top(service, "all about cats part 7").startswith("cats")
        assert service.client.get("/readyz").status_code == 200
