"""How many steps a stage has: as many as it names, or as many as its minutes hold on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drdecr.errors import UsageError
from training.fit import StageRun, first_alone, naming_full_memory, processes
from training.json_file import write_json
from training.recipe import AnyStage

FEWEST_STEPS = 10
_FILE = "plan.json"


@dataclass(frozen=True, slots=True)
class StageCost:
    """Seconds that a stage takes: `each` for a step with what prepares it, `once` for what comes beside its steps."""

    each: float
    once: float = 0.0

    def steps_within(self, seconds: float) -> int:
        """Return how many steps fit, `FEWEST_STEPS` where fewer do."""
        return max(FEWEST_STEPS, int((seconds - self.once) / self.each))


def require_steps(stage: AnyStage, folder: Path) -> None:
    """Raise UsageError for a stage in minutes of several processes, of which only one would be in the collectives."""
    if stage.steps is None and processes() > 1 and not (folder / _FILE).is_file():
        raise UsageError(
            f"stage {stage.name}: {processes()} processes cannot time a step together; give `steps`, not `minutes`"
        )


def planned_steps(run: StageRun, measure: Callable[[], StageCost]) -> int:
    """Return the number of steps, chosen once and kept in plan.json; only a stage in minutes is measured.

    Its minutes begin with `run`: what was loaded since, and the measuring, leave the steps less.

    Raises: UsageError as `require_steps`.
    """
    require_steps(run.stage, run.folder)
    plan = run.folder / _FILE

    def write() -> None:
        if plan.is_file():
            return
        if run.stage.steps is not None:
            write_json(plan, {"steps": run.stage.steps, "seconds_a_step": None})
            return
        assert run.stage.minutes is not None
        with naming_full_memory(run.stage):
            cost = measure()
        left = run.stage.minutes * 60 - (time.monotonic() - run.begun)
        write_json(plan, {"steps": cost.steps_within(left), "seconds_a_step": cost.each})

    first_alone(write)
    return int(json.loads(plan.read_text())["steps"])
