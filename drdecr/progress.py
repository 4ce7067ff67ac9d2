"""How far long work is, on stderr: a bar on a terminal, elsewhere a line every ten minutes."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

LINE_EVERY_S = 600.0
"""How often a log gets a line; what takes less time writes none."""
# From here on a terminal shows thousands and millions, not each.
_MANY = 100_000


class ProgressBar:
    """Shows how much of `total` is finished, and the time that is left at the mean speed so far.

    Without a `total` no time is told. `done` of it were finished before: the speed is reckoned without them. Use it
    as a context manager, so that an error starts on its own line. `keep` leaves the finished bar on a terminal.
    """

    def __init__(self, name: str, total: int | None, unit: str, *, done: int = 0, keep: bool = False) -> None:
        where = _on_terminal(total, keep) if sys.stderr.isatty() else _in_log(total)
        self._bar: tqdm[Any] = tqdm(desc=name, total=total, unit=f" {unit}", initial=done, smoothing=0, **where)

    def advance(self, count: int) -> None:
        """Tell that `count` more are finished."""
        self._bar.update(count)

    def note(self, words: str) -> None:
        """Show `words` behind the figures, from the next change on."""
        self._bar.set_postfix_str(words, refresh=False)

    def close(self) -> None:
        self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _on_terminal(total: int | None, keep: bool) -> dict[str, Any]:
    many = total is None or total >= _MANY
    return {"file": sys.stderr, "leave": keep, "dynamic_ncols": True, "unit_scale": many}


def _in_log(total: int | None) -> dict[str, Any]:
    counted = "{n_fmt}{unit}" if total is None else "{n_fmt} of {total_fmt}{unit}"
    left = "" if total is None else ", {remaining} left"
    return {
        "file": _Lines(),
        "leave": False,
        "position": 0,
        "delay": LINE_EVERY_S,
        "mininterval": LINE_EVERY_S,
        "miniters": 1,
        "bar_format": f"{{desc}}: {counted} after {{elapsed}}{left}{{postfix}}",
    }


class _Lines:
    """Writes each redrawing of a bar as a line of its own."""

    def write(self, drawn: str) -> None:
        if line := drawn.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()
