"""How long work tells what it is doing: a bar for each stage."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from drdecr.progress import ProgressBar


class Progress(Protocol):
    """Told what a build or a change is doing; `total` is None where nobody knows it yet."""

    def stage(self, name: str, total: int | None, unit: str) -> Callable[[int], None]:
        """Begin a stage; the function returned is called with the units finished since its last call."""
        ...


class _Silent:
    def stage(self, name: str, total: int | None, unit: str) -> Callable[[int], None]:
        return lambda _: None


SILENT: Progress = _Silent()
"""Progress that nobody sees."""


class BarProgress:
    """Shows one bar at a time. Use as a context manager, so that an error message starts on its own line."""

    def __init__(self) -> None:
        self._bar: ProgressBar | None = None

    def __enter__(self) -> BarProgress:
        return self

    def __exit__(self, *_: BaseException | type[BaseException] | TracebackType | None) -> None:
        self._finish()

    def stage(self, name: str, total: int | None, unit: str) -> Callable[[int], None]:
        self._finish()
        self._bar = ProgressBar(name, total, unit, keep=True)
        return self._bar.advance

    def _finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
