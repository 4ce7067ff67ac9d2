"""A stage of hours is saved by the clock, not by its share alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import TrainerControl

from training import checkpoints
from training.checkpoints import SAVE_EVERY_S, MarksCheckpoints, SavesInTime, last_whole_checkpoint


def test_first_process_alone_marks_a_checkpoint_once_all_have_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoint-4").mkdir()
    met: list[bool] = []
    monkeypatch.setattr(checkpoints.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(
        checkpoints.distributed, "barrier", lambda: met.append(last_whole_checkpoint(tmp_path) is None)
    )
    arguments = SimpleNamespace(output_dir=str(tmp_path))
    for first in (False, True):
        assert last_whole_checkpoint(tmp_path) is None
        state = SimpleNamespace(global_step=4, is_world_process_zero=first)
        MarksCheckpoints().on_save(arguments, state, TrainerControl())
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    assert met == [True, True]


def test_checkpoint_is_due_ten_minutes_after_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    saves, control = SavesInTime(), TrainerControl()
    clock[0] = 5_000.0
    # What was loaded before the first step does not count.
    saves.on_train_begin(None, None, control)
    due = []
    for minute in range(1, 31):
        clock[0] = 5_000.0 + 60 * minute
        control.should_save = minute == 14
        saves.on_step_end(None, None, control)
        if control.should_save:
            due.append(minute)
            saves.on_save(None, None, control)
    assert SAVE_EVERY_S == 600
    # The trainer's own, at minute 14, counts too.
    assert due == [10, 14, 24]
