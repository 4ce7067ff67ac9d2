"""What a ranking stage learns from: rows of one query and some passages, reached by number."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from drdecr.errors import InputError
from training.rows import Row


@dataclass(frozen=True, slots=True)
class Candidates:
    """A query, the same in English where it is known, and its passages; of a labelled row the first is relevant.

    `scores` are those that the file of the lists holds, one a passage.
    """

    query: str
    english: str | None
    passages: tuple[str, ...]
    scores: tuple[float, ...] | None = None


class CandidateLists(Protocol):
    """Rows by number; they are read when they are asked for, as published files hold millions."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Candidates: ...


@dataclass(frozen=True, slots=True)
class GivenLists:
    """Rows that are in memory."""

    rows: Sequence[Candidates]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Candidates:
        return self.rows[row]


def english_of(row: Candidates) -> str:
    """Return what the teacher reads of a row. Raises: InputError where there is no English."""
    if row.english is None:
        raise InputError(
            f"the query {row.query!r} has no English, which the teacher reads; name `english` in the lists"
        )
    return row.english


def answers_of(labelled: Iterable[Row]) -> dict[str, set[str]]:
    """Return all that answers each English query."""
    answers: dict[str, set[str]] = {}
    for row in labelled:
        answers.setdefault(row.english, set()).add(row.passage)
    return answers


def random_lists(rows: Sequence[Row], labelled: Sequence[Row], ways: int, seed: int) -> GivenLists:
    """Give each row `ways` - 1 random passages, of all `labelled` rows, that do not answer its query.

    Raises: InputError where the collection is too small for that.
    """
    chance = random.Random(seed)
    answers = answers_of(labelled)
    pool = list(dict.fromkeys(row.passage for row in labelled))
    most = max((len(some) for some in answers.values()), default=0)
    if len(pool) - most < ways - 1:
        raise InputError(f"{len(pool)} training passages are too few for lists of {ways}; lower `ways`")
    lists = []
    for row in rows:
        others: list[str] = []
        while len(others) < ways - 1:
            one = pool[chance.randrange(len(pool))]
            if one not in answers[row.english] and one not in others:
                others.append(one)
        lists.append(Candidates(row.query, row.english, (row.passage, *others)))
    return GivenLists(lists)
