"""When an answer is no longer wanted: its time is up, or its client went away."""

from __future__ import annotations

import time
from collections.abc import Callable

from service.problems import Problem

SOFT_SHARE = 0.9
"""After this share of the time, work that can be cut short gives what it has."""

_READING_MS = 10_000


class ClientGoneError(Exception):
    """The client closed its connection; whatever is still done for it is wasted."""


class Deadline:
    """A moment after which nobody waits for the answer. Made on the event loop, read by all threads."""

    __slots__ = ("_at", "_began", "_gone", "_on_gone", "_timeout_ms")

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._began = time.perf_counter()
        self._at = self._began + timeout_ms / 1_000
        self._gone = False
        self._on_gone: set[Callable[[], None]] = set()

    def remaining_s(self) -> float:
        """Return the seconds left, 0 when it has passed."""
        return max(0.0, self._at - time.perf_counter())

    @property
    def pressing(self) -> bool:
        """Tell whether it is time to answer with what is there."""
        return time.perf_counter() - self._began > SOFT_SHARE * (self._at - self._began)

    def check(self) -> None:
        """Stop work that nobody waits for. Raises: Problem 504, ClientGoneError."""
        if self._gone:
            raise ClientGoneError
        if self.remaining_s() == 0:
            raise self.problem()

    def problem(self) -> Problem:
        """Return the answer to a request that is late."""
        return Problem(504, "deadline_exceeded", f"No answer within {self._timeout_ms} ms; allow more by timeout_ms.")

    def extended(self) -> Deadline:
        """Return one that gives the same client time to read what is there, late as it is."""
        extended = Deadline(_READING_MS)
        self.watch(extended.give_up)
        return extended

    def give_up(self) -> None:
        """Note that the client has gone, and tell all that wait for work."""
        self._gone = True
        for tell in list(self._on_gone):
            tell()

    def watch(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the client goes away; at once if it has gone."""
        self._on_gone.add(tell)
        if self._gone:
            tell()

    def forget(self, tell: Callable[[], None]) -> None:
        """Undo `watch`."""
        self._on_gone.discard(tell)
