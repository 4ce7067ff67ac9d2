from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import structlog
from client_lab import ask, pauses
from fake_engine import FakeEncoder, fake_engine
from starlette.testclient import TestClient

from service.app import create_server
from service.engine import Engine
from service.readiness import Readiness
from service.settings import Settings

MakeClient = Callable[..., TestClient]
__all__ = ["ask", "pauses"]


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks() -> None:
    """As the service logs them: structlog alone shows the values of every frame, which takes seconds."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, renderer])


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def make_client(encoder: FakeEncoder) -> Iterator[MakeClient]:
    """Start an app over a fake engine; its settings are given by name."""
    with ExitStack() as stack:

        def make(engine: Engine | None = None, **settings: Any) -> TestClient:
            chosen = Settings(**{"student": "student", "index": "demo=snapshot", "threads": 2, **settings})

            def load(_: Settings, readiness: Readiness) -> Engine:
                for check in readiness.checks:
                    if check.name != "accepting":
                        readiness.update(check.name, "loaded", ok=True)
                return engine or fake_engine(encoder)

            # Not raising server exceptions: an error that reaches the server must show as its status.
            client = TestClient(create_server(chosen, load=load), raise_server_exceptions=False)
            stack.enter_context(client)
            # Called before the app stops, which waits for the work in hand.
            stack.callback(encoder.gate.set)
            for _attempt in range(1_000):
                if client.get("/readyz").status_code == 200:
                    encoder.forget()
                    return client
                time.sleep(0.005)
            raise AssertionError("the app did not become ready")

        yield make


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """Collect what is logged, with what is bound to the request."""
    capture = structlog.testing.LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.configure(**before)


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client()
