"""`drdecr serve --data`: aliases switch under load, from elsewhere, and while the service is killed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
from data_lab import publish
from service_process import WAIT_S, RunningService, running_service

from drdecr.collections.directory import DataDirectory
from drdecr.encoder.load import load_encoder

SEARCH = "/v1/indexes/live/search"


@pytest.fixture
def directory(tiny_student: Path, tmp_path: Path) -> DataDirectory:
    """An index `docs` of two versions, whose every passage names the version that it is of."""
    directory = DataDirectory(tmp_path / "data")
    directory.create_index("docs")
    encoder = load_encoder(tiny_student, threads=1)
    for number in (1, 2):
        texts = {f"p{i}": f"all about cats, part {i} of version {number}" for i in range(20)}
        publish(directory, "docs", encoder, texts, tmp_path / "scratch")
    return directory


def eventually(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def switch(client: httpx.Client, number: int, **headers: str) -> httpx.Response:
    return client.put("/v1/aliases/live", json={"index": "docs", "number": number}, headers=headers)


def mapped(service: RunningService, part: str) -> int:
    return sum(part in found.path for found in psutil.Process(service.process.pid).memory_maps())


def test_alias_switched_a_hundred_times_under_load(
    tiny_student: Path, directory: DataDirectory, tmp_path: Path
) -> None:
    options = ("--student", tiny_student, "--data", directory.root)
    with running_service(tmp_path / "log", *options, FOLLOW_S="0.05") as service:
        first = switch(service.client, 1).json()["index_version"]
        second = switch(service.client, 2).json()["index_version"]
        version_of = {first: 1, second: 2}
        stop = threading.Event()
        seen: Counter[tuple[int, int]] = Counter()
        mixed: list[object] = []

        def ask() -> None:
            item = {"query": "all about cats", "k": 10, "index": "live", "explain": True}
            with httpx.Client(base_url=service.url, timeout=WAIT_S) as client:
                while not stop.is_set():
                    answer = client.post("/v1/search/batch", json={"queries": [item] * 3})
                    results = answer.json().get("results", []) if answer.status_code == 200 else [answer.text]
                    versions = {version_of.get(result.get("index_version")) for result in results}
                    texts = {hit["text"].rpartition(" ")[2] for result in results for hit in result["hits"]}
                    if len(versions) != 1 or texts != {str(*versions)}:
                        mixed.append(results)
                    seen[(answer.status_code, *versions)] += 1

        askers = [threading.Thread(target=ask) for _ in range(2)]
        for asker in askers:
            asker.start()
        try:
            for turn in range(100):
                assert switch(service.client, 1 + turn % 2).status_code == 200
                # Read your own write: what is asked after the answer gets the new version.
                assert service.client.get("/v1/indexes/live").json()["number"] == 1 + turn % 2
        finally:
            stop.set()
            for asker in askers:
                asker.join()
        assert mixed == []
        assert set(seen) == {(200, 1), (200, 2)}
        # Only `live` needed the first version: its files are let go after its last request.
        assert switch(service.client, 2).status_code == 200
        eventually(lambda: mapped(service, "versions/000001") == 0)
        assert mapped(service, "versions/000002") > 0
        assert service.stop() == 0


def test_two_services_see_one_alias(tiny_student: Path, directory: DataDirectory, tmp_path: Path) -> None:
    options = ("--student", tiny_student, "--data", directory.root)
    with (
        running_service(tmp_path / "log1", *options, FOLLOW_S="0.05") as one,
        running_service(tmp_path / "log2", *options, FOLLOW_S="0.05") as other,
    ):
        etag = switch(one.client, 1).headers["etag"]
        eventually(lambda: other.client.get("/v1/indexes/live").status_code == 200)
        assert switch(other.client, 2, **{"If-Match": etag}).status_code == 200
        assert switch(one.client, 1, **{"If-Match": etag}).status_code == 412
        eventually(lambda: one.client.get("/v1/indexes/live").json()["number"] == 2)


def test_service_killed_during_a_switch_serves_the_last_committed_one(
    tiny_student: Path, directory: DataDirectory, tmp_path: Path
) -> None:
    chance = random.Random(7)
    answered = [0]
    sent = [0]

    def switch_on(url: str) -> None:
        with httpx.Client(base_url=url, timeout=WAIT_S) as client:
            while True:
                sent[0] = 3 - sent[0] if sent[0] else 1
                try:
                    assert switch(client, sent[0]).status_code == 200
                except httpx.HTTPError:
                    return
                answered[0] = sent[0]

    for turn in range(3):
        with running_service(tmp_path / f"log{turn}", "--student", tiny_student, "--data", directory.root) as service:
            if answered[0]:
                found = service.client.get("/v1/aliases/live").json()["number"]
                assert found in {answered[0], sent[0]}
                hits = service.client.post(SEARCH, json={"query": "all about cats", "k": 5}).json()["hits"]
                assert {hit["text"].rpartition(" ")[2] for hit in hits} == {str(found)}
                answered[0] = sent[0] = found
            writer = threading.Thread(target=switch_on, args=(service.url,))
            writer.start()
            while not answered[0]:
                time.sleep(0.01)
            time.sleep(chance.uniform(0.05, 0.3))
            service.process.kill()
            writer.join(WAIT_S)
            service.process.wait()
