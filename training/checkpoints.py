"""Checkpoints that are known to be whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

_MARK = "whole"


class MarksCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Marks each checkpoint once all of its files are written: the trainer writes them in place."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        (Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}" / _MARK).touch()


def last_whole_checkpoint(folder: Path) -> str | None:
    """Return the path of the newest marked checkpoint, as the trainer takes it; None where there is none."""
    whole = [mark.parent for mark in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{_MARK}")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None
