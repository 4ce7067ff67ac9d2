"""Starts `drdecr worker` as operators do, and asks the service for builds."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from service_process import COMMAND, WAIT_S, environment


class RunningWorker:
    """A worker process; its log goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def wait_for(self, event: str) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            for entry in self.entries():
                if entry["event"] == event:
                    return entry
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.01)
        raise AssertionError(f"no {event!r} in the log:\n{self._log.read_text()}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop, once it runs: a program that still starts ends by the signal itself."""
        self.wait_for("working")
        self.process.terminate()
        return self.process.wait(WAIT_S)


@contextmanager
def running_worker(log: Path, student: Path, data: Path, *options: str, **settings: str) -> Iterator[RunningWorker]:
    """Run `drdecr worker` until the block ends."""
    command = [*COMMAND, "worker", "--student", str(student), "--data", str(data), *options]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=environment(**settings))
        try:
            yield RunningWorker(process, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def ndjson(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def upload(client: httpx.Client, index: str, records: list[dict[str, Any]], what: str = "passages") -> dict[str, Any]:
    headers = {"content-type": "application/x-ndjson"}
    answer = client.post(f"/v1/indexes/{index}/{what}", content=ndjson(records), headers=headers)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def start_build(client: httpx.Client, index: str, mode: str = "incremental", **headers: str) -> str:
    answer = client.post(f"/v1/indexes/{index}/builds", json={"mode": mode}, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    return str(answer.headers["location"])


def wait_for_job(client: httpx.Client, job: str, *states: str) -> dict[str, Any]:
    """Wait until a job is in one of these states, or has ended."""
    deadline = time.monotonic() + WAIT_S
    while True:
        found = dict(client.get(job).json())
        if found["state"] in (*states, "succeeded", "failed", "cancelled"):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
