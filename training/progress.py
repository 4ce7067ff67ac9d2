"""The steps of a training stage, told while they are taken."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from drdecr.progress import ProgressBar


class StepProgress(TrainerCallback):  # type: ignore[misc]
    """Shows the steps of a stage, the time that is left and the last loss."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: ProgressBar | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar = ProgressBar(self.name, state.max_steps, "steps", done=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.advance(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.bar is not None and logs and "loss" in logs:
            self.bar.note(f"loss {float(logs['loss']):.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()
