"""Whether the service should get requests: named checks, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of readiness."""

    name: str
    ok: bool
    reason: str


class Readiness:
    """The checks that `/readyz` lists. Written by one thread while it loads, read by all."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._open = False
        self._draining = False

    def expect(self, *names: str) -> None:
        """Add checks that have not passed yet."""
        for name in names:
            self._checks[name] = Check(name, False, "not loaded yet")

    def update(self, name: str, reason: str, *, ok: bool = False) -> None:
        """Set one check."""
        self._checks[name] = Check(name, ok, reason)

    def open(self) -> None:
        """Ask for requests: all that answers them is in place."""
        self._open = True

    def drain(self) -> None:
        """Ask for no more requests; those that come are still answered."""
        self._draining = True

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def checks(self) -> list[Check]:
        reason = "draining: about to stop" if self._draining else "open" if self._open else "still loading"
        return [*self._checks.values(), Check("accepting", self._open and not self._draining, reason)]

    @property
    def ready(self) -> bool:
        return all(check.ok for check in self.checks)
