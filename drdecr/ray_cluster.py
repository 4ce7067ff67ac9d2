"""Joins a Ray cluster; the only place that decides how this program speaks to one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from drdecr.errors import DrDecrError, ResourceError


def join_cluster(address: str) -> None:
    """Connect this process to the cluster at `address` (HOST:PORT of its head, or `auto`); once is enough.

    `local` starts one of this machine's processors, which ends with this process. This machine must be a node of any
    other cluster. Raises: ResourceError where ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise ResourceError("--ray needs ray; install drdecr[ray]") from None
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except Exception as problem:
        line = str(problem).strip().partition("\n")[0]
        raise ResourceError(
            f"there is no Ray cluster at {address}, or this machine is no node of it ({type(problem).__name__}: "
            f"{line}); start one by `ray start`, and give every node the same RAY_AUTH_TOKEN"
        ) from None


def leave_cluster() -> None:
    """End this process's connection to a cluster, and what Ray still has to say about it."""
    import ray

    ray.shutdown()


@contextmanager
def plain_errors(doing: str) -> Iterator[None]:
    """Turn what Ray wraps around an error of ours back into that error, and any other into one line.

    Raises: the DrDecrError that a worker raised, ResourceError for the rest.
    """
    import ray

    try:
        yield
    except ray.exceptions.RayError as problem:
        raise _cause(problem) or ResourceError(f"{doing} failed on the cluster: {_last_line(problem)}") from None


def _cause(problem: BaseException) -> DrDecrError | None:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [problem]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, DrDecrError):
            # As ray hands it over its class is one of ray's, which prints all of a worker's trace.
            own = getattr(each, "cause", None)
            return own if isinstance(own, DrDecrError) else each
        waiting += [getattr(each, "cause", None), each.__cause__, each.__context__]
    return None


def _last_line(problem: BaseException) -> str:
    lines = [line for line in str(problem).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(problem).__name__
