"""Jobs whose database is a real PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from postgres import running_postgres
from service_process import running_service
from worker_process import running_worker, start_build, upload, wait_for_job

from drdecr.collections.directory import DataDirectory
from drdecr.index import Snapshot


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_postgres() as url:
        yield url


def test_killed_worker_leaves_its_job_to_another(tiny_student: Path, url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    options = ("--student", tiny_student, "--data", data, "--jobs-url", url)
    with running_service(tmp_path / "serve.log", *options) as service:
        client = service.client
        assert client.post("/v1/indexes", json={"name": "docs"}).status_code == 201
        records = [{"id": f"p{i}", "text": f"All about cats, part {i}."} for i in range(1_000)]
        upload(client, "docs", records)
        job = start_build(client, "docs", **{"Idempotency-Key": "one"})
        with running_worker(tmp_path / "first.log", tiny_student, data, "--jobs-url", url) as worker:
            worker.wait_for("building")
            time.sleep(0.3)
            worker.kill()
        with running_worker(tmp_path / "second.log", tiny_student, data, JOBS_URL=url) as worker:
            ended = wait_for_job(client, job)
            assert (ended["state"], ended["number"]) == ("succeeded", 1), ended
            assert start_build(client, "docs", **{"Idempotency-Key": "one"}) == job
            with client.stream("GET", f"{job}/events") as events:
                assert "event: progress" in set(events.iter_lines())
            assert worker.stop() == 0
        with Snapshot.open(DataDirectory(data).version_path("docs", 1)) as snapshot:
            assert len(snapshot) == len(records)
            assert len(snapshot.passages([str(record["id"]) for record in records])) == len(records)
        assert not (data / "jobs.sqlite").exists()
        waiting = start_build(client, "docs")
        assert client.delete(waiting).json()["state"] == "cancelled"


def test_workers_share_the_builds_of_several_indexes(tiny_student: Path, url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    options = ("--student", tiny_student, "--data", data, "--jobs-url", url)
    names = [f"docs{number}" for number in range(4)]
    with running_service(tmp_path / "serve.log", *options) as service, ExitStack() as stack:
        for number in range(2):
            log = tmp_path / f"worker{number}.log"
            stack.enter_context(running_worker(log, tiny_student, data, "--jobs-url", url)).wait_for("working")
        jobs: list[str] = []

        def order(name: str) -> None:
            service.client.post("/v1/indexes", json={"name": name})
            upload(service.client, name, [{"id": f"{name}-{i}", "text": f"part {i}"} for i in range(50)])
            jobs.extend(start_build(service.client, name) for _ in range(2))

        clients = [threading.Thread(target=order, args=(name,)) for name in names]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        ended = [wait_for_job(service.client, job) for job in jobs]
        assert [(job["state"], job["number"]) for job in ended] == [("succeeded", 1)] * 8
        directory = DataDirectory(data)
        assert [directory.versions(name) for name in names] == [[1]] * 4
