"""Threads that the process may leave behind, and the service that is stopped while one of them loads."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from fake_engine import fake_engine
from starlette.testclient import TestClient

from service.app import create_server
from service.settings import Settings
from service.threads import LeavableThread, run_apart

NAME = contextvars.ContextVar("NAME", default="nobody")


def left() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if isinstance(thread, LeavableThread)}


def test_work_apart_returns_its_result_and_sees_what_its_caller_has_bound():
    async def ask() -> tuple[str, bool]:
        NAME.set("somebody")
        return await run_apart(lambda: (NAME.get(), threading.current_thread().daemon))

    assert asyncio.run(ask()) == ("somebody", True)


def test_work_apart_raises_its_error():
    def broken() -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        asyncio.run(run_apart(broken))


def test_a_caller_that_is_cancelled_waits_for_nothing():
    before, end = left(), threading.Event()

    async def give_up() -> None:
        async with asyncio.timeout(0.05):
            await run_apart(end.wait)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    (thread,) = left() - before
    # Its loop is closed by now: that nobody is left to tell is no error.
    end.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_service_that_drains_before_it_is_loaded_never_gets_ready(encoder, logged):
    end = threading.Event()

    def load(_, readiness):
        assert end.wait(30)
        for check in readiness.checks:
            readiness.update(check.name, "loaded", ok=True)
        return fake_engine(encoder)

    app = create_server(Settings(student="student", index="demo=snapshot", threads=1), load=load)
    with TestClient(app) as client:
        app.state.service.readiness.drain()
        end.set()
        assert client.get("/readyz").status_code == 503
    assert app.state.service.loaded is None
    assert "ready" not in {entry["event"] for entry in logged}
