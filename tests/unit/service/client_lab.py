"""What the tests of both clients share: the app as their network, given answers, pauses that are not taken."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.client import AsyncClient, Client

Asked = Callable[..., tuple[Any, list[httpx.Request]]]


def through(client) -> httpx.MockTransport:
    """Send what the client sends to the app."""

    def answer(sent: httpx.Request) -> httpx.Response:
        got = client.request(sent.method, str(sent.url), content=sent.content, headers=dict(sent.headers))
        return httpx.Response(got.status_code, headers=dict(got.headers), content=got.content)

    return httpx.MockTransport(answer)


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """Note this thread's pauses instead of taking them; libraries have threads of their own, which pause too."""
    taken: list[float] = []
    own = threading.get_ident()
    sleep, sleep_async = time.sleep, asyncio.sleep

    def note(pause_s: float) -> None:
        if threading.get_ident() == own:
            taken.append(pause_s)
        else:
            sleep(pause_s)

    async def note_async(pause_s: float) -> None:
        if threading.get_ident() == own:
            taken.append(pause_s)
        else:
            await sleep_async(pause_s)

    monkeypatch.setattr("service.client.sync_client.time.sleep", note)
    monkeypatch.setattr("service.client.async_client.asyncio.sleep", note_async)
    return taken


@pytest.fixture(params=["sync", "async"])
def ask(request) -> Asked:
    """Call a client's method against given answers; return the result and the requests."""

    def run(answers: list[httpx.Response | Exception], method: str, *args: Any, **options: Any) -> Any:
        asked: list[httpx.Request] = []

        def answer(sent: httpx.Request) -> httpx.Response:
            asked.append(sent)
            given = answers[min(len(asked), len(answers)) - 1]
            if isinstance(given, Exception):
                raise given
            return given

        made = {name: options.pop(name) for name in ("retries",) if name in options}
        if request.param == "sync":
            with Client("http://service", transport=httpx.MockTransport(answer), **made) as client:
                return getattr(client, method)(*args, **options), asked

        async def wait() -> Any:
            async with AsyncClient("http://service", transport=httpx.MockTransport(answer), **made) as client:
                return await getattr(client, method)(*args, **options)

        return asyncio.run(wait()), asked

    return run
