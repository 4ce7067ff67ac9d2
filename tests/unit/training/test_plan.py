"""How many steps a stage in minutes has: what it spent before its first step, and what follows its last, counts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from drdecr.errors import UsageError
from training.fit import StageRun, require_whole_parts
from training.plan import FEWEST_STEPS, StageCost, planned_steps, require_steps
from training.recipe import Stage


@pytest.mark.parametrize(("spent", "once", "each", "steps"), [(0, 0, 2, 300), (100, 200, 10, 30), (590, 200, 10, 10)])
def test_steps_are_those_that_the_rest_of_the_minutes_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spent: float, once: float, each: float, steps: int
) -> None:
    run = StageRun(Stage(name="a", minutes=10), tmp_path, tmp_path, seed=1, begun=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + spent)
    assert planned_steps(run, lambda: StageCost(each, once)) == steps
    assert json.loads((tmp_path / "plan.json").read_text()) == {"steps": steps, "seconds_a_step": each}
    # What was planned is what is done, whatever a later start would have measured.
    assert planned_steps(run, lambda: StageCost(each * 100, once)) == steps


def test_stage_with_steps_is_not_measured(tmp_path: Path) -> None:
    def measure() -> StageCost:
        raise AssertionError("a stage with `steps` was timed")

    assert planned_steps(StageRun(Stage(name="a", steps=7), tmp_path, tmp_path, seed=1), measure) == 7


def test_stage_has_a_few_steps_where_its_minutes_hold_none() -> None:
    assert StageCost(each=1.0, once=60.0).steps_within(30.0) == FEWEST_STEPS


def test_several_processes_neither_time_a_step_nor_share_a_batch_unevenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    timed = Stage(name="a", minutes=10, batch_size=6)
    with pytest.raises(UsageError, match="stage a: 3 processes cannot time a step together; give `steps`"):
        require_steps(timed, tmp_path)
    require_steps(Stage(name="a", steps=10), tmp_path)
    # What was planned by one process is known.
    (tmp_path / "plan.json").write_text('{"steps": 9, "seconds_a_step": 1.0}')
    require_steps(timed, tmp_path)
    require_whole_parts(timed)
    for size in (8, 3):
        with pytest.raises(UsageError, match=f"stage a: batch_size {size} is not 3 processes x 1"):
            require_whole_parts(Stage(name="a", steps=1, batch_size=size))
