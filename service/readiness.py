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
        self._draining = False

    def expect(self, *names: str) -> None:
        """Add checks that have not passed yet."""
        for name in names:
            self._checks[name] = Check(name, False, "not loaded yet")

    def update(self, name: str, reason: str, *, ok: bool = False) -> None:
        """Set one check."""
        self._checks[name] = Check(name, ok, reason)

    def drain(self) -> None:
        """Ask for no more requests; those that come are still answered."""
        self._draining = True

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def checks(self) -> list[Check]:
        draining = Check("accepting", not self._draining, "draining: about to stop" if self._draining else "open")
        return [*self._checks.values(), draining]

    @property
    def ready(self) -> bool:
        return all(check.ok for check in self.checks)
