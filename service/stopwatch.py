"""Where the time of an answer went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.schemas import TookMs

WATCH_KEY = "drdecr.watch"
"""Where a request's stopwatch stands in its ASGI scope."""


class Stopwatch:
    """Adds up milliseconds by stage, from the moment it is made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.stages: dict[str, float] = {}
        self.periods: dict[str, tuple[int, int]] = {}
        """Each stage's first beginning and last end, in nanoseconds since 1970, as traces want them."""

    def elapsed_ms(self) -> float:
        """Return the milliseconds since it was made."""
        return (time.perf_counter() - self._began) * 1_000

    def add(self, stage: str, milliseconds: float) -> None:
        """Count time that was measured elsewhere and ends now."""
        now_ns = time.time_ns()
        self.stages[stage] = self.stages.get(stage, 0.0) + milliseconds
        self._extend(stage, now_ns - int(milliseconds * 1e6), now_ns)

    def include(self, other: Stopwatch) -> None:
        """Count the stages of another one too, whose work may still go on."""
        # Each period here has its stage there, as `add` writes the stage first.
        periods, stages = dict(other.periods), dict(other.stages)
        for stage, milliseconds in stages.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + milliseconds
        for stage, period in periods.items():
            self._extend(stage, *period)

    def _extend(self, stage: str, began_ns: int, ended_ns: int) -> None:
        began, ended = self.periods.get(stage, (began_ns, ended_ns))
        self.periods[stage] = min(began, began_ns), max(ended, ended_ns)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, (time.perf_counter() - began) * 1_000)

    def shown(self) -> dict[str, float]:
        """Return the milliseconds of all stages until now, rounded to microseconds; work may still go on."""
        return {stage: round(ms, 3) for stage, ms in dict(self.stages).items()}

    def took_ms(self) -> TookMs:
        """Return all stages and the total until now, rounded to microseconds."""
        shown = {stage: ms for stage, ms in self.shown().items() if stage in TookMs.model_fields}
        return TookMs(**shown, total=round(self.elapsed_ms(), 3))
