"""A signal is obeyed while the service loads, however long that takes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from service_process import environment

PROGRAM = Path(__file__).with_name("slow_service.py")
WAIT_S = 90
"""How long a process may take to end whose work would never end, on a machine that does much else."""


@contextmanager
def slow_service(stage: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service until it is at what does not end."""
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, PROGRAM, stage, log.parent], stderr=stderr, env=environment())
        try:
            deadline = time.monotonic() + WAIT_S
            while "began" not in log.read_text():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("stage", ["load", "onnx", "warm-up", "data", "newer"])
def test_sigterm_is_obeyed_while_something_loads(tmp_path: Path, stage: str):
    log = tmp_path / "log"
    with slow_service(stage, log) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    assert '"stopped"' in log.read_text()
    assert ('"ready"' in log.read_text()) == (stage == "newer")
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_is_obeyed_while_it_loads_however_often(tmp_path: Path, presses: int):
    with slow_service("load", tmp_path / "log") as process:
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert process.wait(WAIT_S) == 0
