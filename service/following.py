"""Follows what changes on disk: it serves without a restart, and without losing a request."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import structlog

from service.engine import describe
from service.state import Service
from service.threads import run_apart

log = structlog.get_logger("service.following")

RETRY_S = 30.0
"""How long a generation that cannot be served is left alone; opening it may mean reading all of it."""


async def follow(service: Service, stopping: asyncio.Event) -> None:
    """Look for newer generations, and for changes of the data directory, every `follow_s` seconds until `stopping`.

    Requests in flight end on the generation that they began with. What cannot be served is logged, and the old
    generation stays.
    """
    retry_at: dict[str, float] = {}
    while not stopping.is_set():
        if service.data is not None:
            await service.data.try_follow(service)
        for name in [name for name, index in service.engine.indexes.items() if index.version is None]:
            # No index is held here: what is replaced is let go at once.
            if time.monotonic() >= retry_at.get(name, 0.0) and not await _switch(service, name):
                retry_at[name] = time.monotonic() + RETRY_S
        try:
            async with asyncio.timeout(service.settings.follow_s):
                await stopping.wait()
        except TimeoutError:
            continue


async def _switch(service: Service, name: str) -> bool:
    """Serve the newer generation of an index, if there is one; False where it cannot be served."""
    index = service.engine.indexes[name]
    try:
        newer = await run_apart(index.newer)
    except Exception as error:
        # Whatever is wrong with the new one, the old one answers.
        log.error("index not followed", index=index.name, error=str(error), serves=index.snapshot.version)
        service.metrics.switches.labels(index.name, "failed").inc()
        return False
    if newer is not None:
        engine = service.engine
        service.loaded = replace(engine, indexes={**engine.indexes, index.name: newer})
        service.readiness.update(f"index:{index.name}", describe(newer), ok=True)
        service.metrics.switches.labels(index.name, "served").inc()
        log.info("index switched", index=index.name, before=index.snapshot.version, now=newer.snapshot.version)
    return True
