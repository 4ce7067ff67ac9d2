"""Evaluate a demo in a process of its own while it serves: a newcomer searches that much earlier."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import httpx

# A service that is not ready by then has a trouble of its own.
_READY_S = 60.0
_LOOK_S = 0.2


def evaluate_meanwhile(module: str, url: str, *arguments: str) -> None:
    """Start a process that calls `evaluate_apart(*arguments)` of a module once this one serves at `url`."""
    # Before the module is read, which takes many seconds where it trains.
    call = (
        f"import sys; from training.demo_evaluation import give_way_to; give_way_to(sys.argv[1], {os.getpid()}); "
        f"from {module} import evaluate_apart; evaluate_apart(*sys.argv[2:])"
    )
    subprocess.Popen([sys.executable, "-c", call, url, *arguments])


def give_way_to(url: str, service: int) -> None:
    """Wait until the service at `url` is ready, take what it leaves, and end when it ends.

    `service` is the id of its process, which started this one.
    """
    os.nice(10)

    def end_with_it() -> None:
        while os.getppid() == service:
            time.sleep(_LOOK_S)
        os._exit(0)

    threading.Thread(target=end_with_it, daemon=True).start()
    until = time.monotonic() + _READY_S
    while time.monotonic() < until and not _is_ready(url):
        time.sleep(_LOOK_S)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).is_success
    except httpx.TransportError:
        return False
