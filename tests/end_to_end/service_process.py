"""Starts `drdecr serve` as users do: a process, a port, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

THINGS = ("cats", "dogs", "moons", "editors", "violins", "rivers")
"""What the passages of the `snapshot` fixture are about."""
WAIT_S = 150
"""How long a test waits for what must come, on a machine that does much else."""
COMMAND = [str(Path(sys.executable).with_name("drdecr"))]


class RunningService:
    """A service that listens; its log goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.url = self._wait_for("listening")["url"]
        self.client = httpx.Client(base_url=self.url, timeout=WAIT_S)

    def entries(self) -> list[dict]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def wait_until_ready(self) -> None:
        self._wait_for("ready")

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(sent)
        return self.process.wait(WAIT_S)

    def _wait_for(self, event: str) -> dict:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            for entry in self.entries():
                if entry["event"] == event:
                    return entry
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no {event!r} in the log:\n{self._log.read_text()}")


def environment(**settings: str) -> dict[str, str]:
    """Return this environment with settings of the service, and no others."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DRDECR_")}
    return {**clean, "OMP_NUM_THREADS": "1", **{f"DRDECR_{name}": value for name, value in settings.items()}}


@contextmanager
def running_service(log: Path, *options: str | Path, **settings: str) -> Iterator[RunningService]:
    """Run `drdecr serve` on a free port until the block ends. Only a deadline that the test sets can pass."""
    command = [*COMMAND, "serve", "--port", "0", *map(str, options)]
    settings = {"TIMEOUT_MS": str(1_000 * WAIT_S), **settings}
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=environment(**settings))
        try:
            service = RunningService(process, log)
            service.wait_until_ready()
            with service.client:
                yield service
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def serve_and_fail(*options: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `drdecr serve` with something wrong; returns when it exits."""
    command = [*COMMAND, "serve", *map(str, options)]
    return subprocess.run(
        command, env=environment(**settings), capture_output=True, text=True, timeout=WAIT_S, check=False
    )
