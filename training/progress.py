"""One progress line for a long step: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm
from transformers import TrainerCallback


class StageProgress:
    """A bar with the time that is left."""

    def __init__(self, name: str, total: int) -> None:
        self.bar = tqdm(desc=name, total=total, disable=not sys.stderr.isatty(), dynamic_ncols=True, leave=False)

    def advance(self, count: int) -> None:
        self.bar.update(count)

    def callback(self) -> TrainerCallback:
        """Return what makes a trainer move this bar."""
        return _Moves(self.bar)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()


class _Moves(TrainerCallback):  # type: ignore[misc]
    def __init__(self, bar: tqdm[Any]) -> None:
        self.bar = bar

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.n = state.global_step
        self.bar.refresh()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.close()
