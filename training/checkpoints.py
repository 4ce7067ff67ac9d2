"""Checkpoints that are known to be whole."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from torch import distributed
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

_MARK = "whole"
SAVE_EVERY_S = 600.0


class MarksCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Marks each checkpoint once all of its files are written: the trainer writes them in place.

    Of processes that train together the first writes most of them, and each one a file of its own.
    """

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if distributed.is_initialized():
            distributed.barrier()
        if not state.is_world_process_zero:
            return
        (Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}" / _MARK).touch()


class SavesInTime(TrainerCallback):  # type: ignore[misc]
    """Saves a checkpoint where the last one is ten minutes old: a quarter of a stage may take hours."""

    def __init__(self) -> None:
        self._saved = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if time.monotonic() - self._saved >= SAVE_EVERY_S:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = time.monotonic()


def last_whole_checkpoint(folder: Path) -> str | None:
    """Return the path of the newest marked checkpoint, as the trainer takes it; None where there is none."""
    whole = [mark.parent for mark in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{_MARK}")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None
