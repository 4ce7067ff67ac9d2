"""Threads that the process may leave behind when it stops: what they do only reads."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

_Result = TypeVar("_Result")
_Params = ParamSpec("_Params")


class LeavableThread(threading.Thread):
    """A daemon thread whose work may end in the middle."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)


def any_left() -> bool:
    """Tell whether such a thread still runs."""
    return any(isinstance(thread, LeavableThread) for thread in threading.enumerate())


async def run_apart(work: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
    """Run `work`, which must only read, in a thread of its own; whoever is cancelled meanwhile leaves it behind.

    asyncio's own threads are joined before the process ends, however long their work takes.

    Raises: what the work raised.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()
    context = contextvars.copy_context()

    def tell(set_it: Callable[[Any], None], value: object) -> None:
        # Where the loop was closed meanwhile, nobody is left to tell.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if future.done() else set_it(value))

    def run() -> None:
        try:
            tell(future.set_result, context.run(work, *args, **kwargs))
        except BaseException as error:
            tell(future.set_exception, error)

    LeavableThread(run, f"apart-{getattr(work, '__name__', 'work')}").start()
    return await future
