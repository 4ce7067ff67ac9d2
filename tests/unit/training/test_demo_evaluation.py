"""The process that evaluates while a demo serves."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

SERVICE = """
import time
from training.demo_evaluation import evaluate_meanwhile

evaluate_meanwhile("no_module", "http://127.0.0.1:9")
time.sleep(600)
"""
WAIT_S = 60


def test_it_gives_way_to_the_service_and_ends_with_it() -> None:
    until = time.monotonic() + WAIT_S
    with subprocess.Popen([sys.executable, "-c", SERVICE]) as service:
        children: list[psutil.Process] = []
        while not children or children[0].nice() < 10:
            assert time.monotonic() < until and service.poll() is None
            time.sleep(0.05)
            children = psutil.Process(service.pid).children()
        service.kill()
    # Before it was ready, and so before any module was read.
    while children[0].is_running() and children[0].status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)
