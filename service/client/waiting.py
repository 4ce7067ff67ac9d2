"""How a job is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from drdecr.collections.jobs import ENDED
from drdecr.errors import ServiceError
from service.schemas_data import JobBody

OnProgress = Callable[[JobBody], object]
"""Called with a job whenever its state or its progress is another than before."""


def waited(
    timeout_s: float | None, poll_s: float, on_progress: OnProgress | None
) -> Generator[float, JobBody, JobBody]:
    """Decide, without a network, how a job is waited for: yields the pause before each look, is sent what was seen.

    Returns the job that succeeded. Raises: ServiceError.
    """
    ends = None if timeout_s is None else time.monotonic() + timeout_s
    last: JobBody | None = None
    pause_s = 0.0
    while True:
        seen = yield pause_s
        if on_progress is not None and seen != last:
            on_progress(seen)
        last = seen
        if seen.state == "succeeded":
            return seen
        if seen.state in ENDED:
            raise ServiceError(f"Job {seen.id} {_how(seen)}.", code=f"job_{seen.state}")
        pause_s = poll_s if ends is None else min(poll_s, ends - time.monotonic())
        if pause_s < 0:
            raise ServiceError(
                f"Job {seen.id} is {seen.state} after {timeout_s:g} s; it goes on.", code="job_not_ended"
            )


def _how(job: JobBody) -> str:
    return "was cancelled" if job.state == "cancelled" else f"failed: {job.error}"
