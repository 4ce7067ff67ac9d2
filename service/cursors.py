"""Pages of one ranking: opaque cursors, pinned to the version of the index that they were made from.

A cursor names the passages of the pages so far, and the next page is the best of the others: what a deeper search
finds late comes late, and nothing comes twice.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from drdecr.index.backend import Hit
from service.engine import ServedIndex
from service.problems import FieldError, Problem

MAX_CURSOR_CHARS = 8_192
"""Holds a thousand positions among 2**35."""
MAX_VERSIONS = 4
"""Kept of one name; an index that changes every second must not fill the memory with what it was."""


def _pack(positions: Collection[int]) -> str:
    """Write positions as the steps between them, ascending, each in as many bytes as it has 7 bits."""
    packed, before = bytearray(), -1
    for position in sorted(positions):
        step, before = position - before - 1, position
        while step > 127:
            packed.append(step & 127 | 128)
            step >>= 7
        packed.append(step)
    return _to_text(packed)


def _unpack(packed: object) -> object:
    """Read what `_pack` wrote. Raises: ValueError."""
    if isinstance(packed, frozenset):
        return packed
    if not isinstance(packed, str):
        raise ValueError("is no text")
    positions, before, step, shift = set(), -1, 0, 0
    for byte in _to_bytes(packed):
        step |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            before += step + 1
            positions.add(before)
            step = shift = 0
    if shift:
        raise ValueError("ends within a position")
    return frozenset(positions)


Positions = Annotated[frozenset[int], BeforeValidator(_unpack), PlainSerializer(_pack)]


class Cursor(BaseModel):
    """What stands in an opaque cursor. `question` is a digest of all that decides the ranking.

    `shown` are the positions of the passages of all pages so far.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    version: str = Field(max_length=128)
    question: str = Field(max_length=32)
    shown: Positions = Field(min_length=1)

    def __str__(self) -> str:
        return _to_text(self.model_dump_json().encode())

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read a cursor that a search gave. Raises: Problem 422."""
        try:
            return cls.model_validate_json(_to_bytes(text))
        except (ValueError, ValidationError):
            raise _refusal("is not a cursor of this service") from None

    def require(self, question: str) -> None:
        """Check that it goes on with the same question. Raises: Problem 422."""
        if self.question != question:
            raise _refusal("belongs to another query, filter or params; repeat the request that gave it")

    def rest(self, hits: Sequence[Hit]) -> list[Hit]:
        """Return the hits that no page has shown."""
        return [hit for hit in hits if hit.position not in self.shown]


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


def _to_text(content: bytes | bytearray) -> str:
    return base64.urlsafe_b64encode(content).decode("ascii").rstrip("=")


def _to_bytes(text: str) -> bytes:
    """Raises: ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _refusal(message: str) -> Problem:
    return Problem(
        422, "invalid_request", f"/cursor {message}.", errors=[FieldError(pointer="/cursor", message=message)]
    )
