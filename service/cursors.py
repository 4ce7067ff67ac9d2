"""Pages of one ranking: opaque cursors, pinned to the version of the index that they were made from.

A cursor holds where its page ended: the score and position of the last hit. The next page is everything that ranks
after that hit, so no passage comes twice, even where a deeper search finds a better one late.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drdecr.index.backend import Hit
from service.engine import ServedIndex
from service.problems import FieldError, Problem

MAX_CURSOR_CHARS = 512
MAX_VERSIONS = 4
"""Kept of one name; an index that changes every second must not fill the memory with what it was."""


class Cursor(BaseModel):
    """What stands in an opaque cursor. `question` is a digest of all that decides the ranking."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    version: str = Field(max_length=128)
    question: str = Field(max_length=32)
    seen: int = Field(ge=1, le=1_000_000)
    score: float = Field(allow_inf_nan=False)
    position: int = Field(ge=0, le=2**62)

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode("ascii").rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read a cursor that a search gave. Raises: Problem 422."""
        try:
            content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            return cls.model_validate_json(content)
        except (ValueError, ValidationError):
            raise _refusal("is not a cursor of this service") from None

    def require(self, question: str) -> None:
        """Check that it goes on with the same question. Raises: Problem 422."""
        if self.question != question:
            raise _refusal("belongs to another query, filter or params; repeat the request that gave it")

    def rest(self, hits: Sequence[Hit]) -> list[Hit]:
        """Return the hits that rank after the page that this cursor ended."""
        return [hit for hit in hits if (-hit.score, hit.position) > (-self.score, self.position)]


def digest(*parts: object) -> str:
    """Return a short digest of what decides a ranking."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(slots=True)
class _Kept:
    index: ServedIndex
    until: float


class PinnedIndexes:
    """Keeps the versions that cursors were made from, until `keep_s` seconds after the last one."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._kept: dict[tuple[str, str], _Kept] = {}

    @property
    def count(self) -> int:
        return len(self._kept)

    def pin(self, alias: str, index: ServedIndex) -> None:
        """Keep a version for the cursor that is being given. On the event loop."""
        key = alias, index.snapshot.version
        new = key not in self._kept
        self._kept[key] = _Kept(index, time.monotonic() + self._keep_s)
        if new:
            self._release_later(key)
            own = [each for each in self._kept if each[0] == alias]
            for oldest in sorted(own, key=lambda each: self._kept[each].until)[:-MAX_VERSIONS]:
                del self._kept[oldest]

    def find(self, alias: str, current: ServedIndex, version: str) -> ServedIndex:
        """Return the index of a cursor's version. Raises: Problem 410 when that is gone."""
        if current.snapshot.version == version:
            return current
        kept = self._kept.get((alias, version))
        if kept is None:
            raise Problem(
                410, "cursor_expired", "The index has changed since this cursor was made; search again without it."
            )
        return kept.index

    def _release_later(self, key: tuple[str, str]) -> None:
        delay_s = max(0.0, self._kept[key].until - time.monotonic())
        asyncio.get_running_loop().call_later(delay_s, self._release, key)

    def _release(self, key: tuple[str, str]) -> None:
        kept = self._kept.get(key)
        if kept is not None and kept.until > time.monotonic():
            self._release_later(key)
        else:
            self._kept.pop(key, None)


def _refusal(message: str) -> Problem:
    return Problem(
        422, "invalid_request", f"/cursor {message}.", errors=[FieldError(pointer="/cursor", message=message)]
    )
