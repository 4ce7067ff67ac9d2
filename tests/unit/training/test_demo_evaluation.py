"""The process that evaluates while a demo serves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

MODULE = """
import os, time
from pathlib import Path
from training.demo_evaluation import give_way_to

def evaluate_apart(url, mark):
    Path(mark + ".partial").write_text(str(os.getpid()))
    Path(mark + ".partial").rename(mark)
    give_way_to(url)
    time.sleep(60)
"""
SERVICE = """
import sys, time
from training.demo_evaluation import evaluate_meanwhile

evaluate_meanwhile("evaluates", "http://127.0.0.1:9", sys.argv[1])
time.sleep(60)
"""
WAIT_S = 60


def test_it_ends_with_the_service_and_gives_way_to_it(tmp_path: Path) -> None:
    (tmp_path / "evaluates.py").write_text(MODULE)
    mark = tmp_path / "began"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    with subprocess.Popen([sys.executable, "-c", SERVICE, str(mark)], env=environment) as service:
        until = time.monotonic() + WAIT_S
        while not mark.exists():
            assert time.monotonic() < until and service.poll() is None
            time.sleep(0.05)
        evaluation = psutil.Process(int(mark.read_text()))
        while evaluation.nice() < 10:
            assert time.monotonic() < until
            time.sleep(0.05)
        service.kill()
    while evaluation.is_running() and evaluation.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)
