"""Notices that a client has gone while its answer is being made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from service.deadline import Deadline


@asynccontextmanager
async def noticing_departure(request: Request, deadline: Deadline) -> AsyncIterator[None]:
    """Give the deadline up when the client closes its connection. The request's body must have been read."""
    watching = asyncio.create_task(_watch(request, deadline))
    try:
        yield
    finally:
        watching.cancel()


async def _watch(request: Request, deadline: Deadline) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    deadline.give_up()
