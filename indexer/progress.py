"""A progress bar for each stage of a build, on stderr; none where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tqdm import tqdm


class BarProgress:
    """Shows one bar at a time. Use as a context manager, so that an error message starts on its own line."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> BarProgress:
        return self

    def __exit__(self, *_: BaseException | type[BaseException] | TracebackType | None) -> None:
        self._finish()

    def stage(self, name: str, total: int | None, unit: str) -> Callable[[int], None]:
        self._finish()
        self._bar = bar = tqdm(
            total=total, desc=name, unit=f" {unit}", unit_scale=True, disable=not sys.stderr.isatty(), file=sys.stderr
        )

        def advance(count: int) -> None:
            bar.update(count)

        return advance

    def _finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
