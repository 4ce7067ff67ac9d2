"""Candidate lists as they are published: ColBERT's lists of ids, ColBERTv2's with scores, and TSV of texts."""

from __future__ import annotations

import json
import random
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import is_dpr_header, passage_from_json, read_lines, unquoted
from drdecr.errors import InputError
from training.candidates.lines import LineStore
from training.candidates.lists import CandidateLists, Candidates
from training.recipe import Lists


def open_lists(lists: Lists, ways: int, rows: int, seed: int) -> CandidateLists:
    """Open the first `rows` lists of a file, in its order; a file with fewer is gone through again.

    Of a longer list of ids, the first passage is kept and `ways` - 1 of the others drawn, by seed; of a longer list
    of texts the first `ways` are taken.

    Raises: InputError that names the file and line of a list that is too short, or of an id without a text.
    """
    if lists.holds_ids:
        return _IdLists(lists, ways, rows, seed)
    return _TextLists(lists, ways, rows)


class _TextLists:
    def __init__(self, lists: Lists, ways: int, rows: int) -> None:
        self._ways = ways
        self._in_english = lists.in_english
        self._rows = rows
        self._lines = LineStore(lists.file)
        self._english = None if lists.english is None else LineStore(lists.english)
        if self._english is not None and len(self._english) != len(self._lines):
            raise InputError(
                f"has {len(self._english)} lines, {lists.file} {len(self._lines)}; they belong together line by line",
                path=lists.english,
            )

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> Candidates:
        line = row % len(self._lines)
        query, *passages = self._lines.fields(line, self._ways + 1)[: self._ways + 1]
        if self._english is None:
            return Candidates(query, query if self._in_english else None, tuple(passages))
        english, *theirs = self._english.fields(line, 1)[: self._ways + 1]
        # The teacher's file is the query alone, or a list of the same passages.
        if theirs and theirs != passages:
            raise InputError(
                f"has other passages than {self._lines.path}; teacher and student must read the same",
                path=self._english.path,
                line=line + 1,
            )
        return Candidates(query, english, tuple(passages))


class _IdLists:
    def __init__(self, lists: Lists, ways: int, rows: int, seed: int) -> None:
        assert lists.queries is not None and lists.passages is not None
        self._rows = rows
        self._title = lists.title
        self._in_english = lists.in_english
        queries: dict[str, int] = {}
        passages: dict[str, int] = {}
        self._asked, self._listed, self._scores = _read_ids(lists.file, ways, rows, seed, queries, passages)
        self._queries, self._query_lines = _place(lists.queries, queries)
        self._passages, self._passage_lines = _place(lists.passages, passages)
        self._quoted = is_dpr_header(self._passages[0])
        self._english: LineStore | None = None
        if lists.english is not None:
            self._english, self._english_lines = _place(lists.english, queries)

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> Candidates:
        row %= len(self._asked)
        asked = int(self._asked[row])
        query = self._queries.fields(int(self._query_lines[asked]), 2)[1]
        english = query if self._in_english else None
        if self._english is not None:
            english = self._english.fields(int(self._english_lines[asked]), 2)[1]
        return Candidates(
            query=query,
            english=english,
            passages=tuple(self._passage(int(number)) for number in self._listed[row]),
            scores=None if self._scores is None else tuple(self._scores[row].tolist()),
        )

    def _passage(self, number: int) -> str:
        line = int(self._passage_lines[number])
        text = self._passages[line]
        if text.startswith("{"):
            try:
                passage = passage_from_json(text)
            except InputError as problem:
                raise InputError(str(problem), path=self._passages.path, line=line + 1) from None
            return f"{passage.title}{self._title}{passage.text}" if passage.title else passage.text
        _, body, *title = self._passages.fields(line, 2)
        if self._quoted:
            body, title = unquoted(body), [unquoted(each) for each in title]
        return f"{title[0]}{self._title}{body}" if title and title[0] else body


def _read_ids(
    path: Path, ways: int, rows: int, seed: int, queries: dict[str, int], passages: dict[str, int]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32] | None]:
    """Read lists of ids, giving each new id the next number of `queries` or `passages`."""
    asked, listed, scores = array("i"), array("i"), array("f")
    chance = random.Random(seed)
    for number, line in read_lines(path):
        if len(asked) == rows:
            break
        if not line.strip():
            continue
        query, found = _parse(line, path, number)
        if len(found) < ways:
            raise InputError(
                f"a list of {len(found)} passages, the stage wants {ways}; lower `ways`", path=path, line=number
            )
        chosen = [found[0], *(found[1:] if len(found) == ways else chance.sample(found[1:], ways - 1))]
        if len({score is None for _, score in chosen}) > 1 or (len(asked) and (chosen[0][1] is None) != (not scores)):
            raise InputError("some passages have scores and some have none", path=path, line=number)
        asked.append(queries.setdefault(query, len(queries)))
        for passage, score in chosen:
            listed.append(passages.setdefault(passage, len(passages)))
            if score is not None:
                scores.append(score)
    if not asked:
        raise InputError("holds no lists", path=path)
    return (
        np.array(asked, np.int32),
        np.array(listed, np.int32).reshape(-1, ways),
        np.array(scores, np.float32).reshape(-1, ways) if scores else None,
    )


def _parse(line: str, path: Path, number: int) -> tuple[str, list[tuple[str, float | None]]]:
    try:
        query, *found = json.loads(line)
        return str(query), [_candidate(one) for one in found]
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise InputError(
            "expected a JSON list of ids, [query, passage, …] or [query, [passage, score], …]", path=path, line=number
        ) from None


def _candidate(one: Any) -> tuple[str, float | None]:
    if isinstance(one, list):
        passage, score = one
        return str(passage), float(score)
    if isinstance(one, (dict, float, bool)) or one is None:
        raise TypeError
    return str(one), None


def _place(path: Path, wanted: dict[str, int]) -> tuple[LineStore, NDArray[np.int64]]:
    store = LineStore(path)
    return store, store.find(wanted, _quoted_identifier if is_dpr_header(store[0]) else _identifier)


def _quoted_identifier(line: str) -> str:
    return unquoted(_identifier(line))


def _identifier(line: str) -> str:
    if line.startswith("{"):
        try:
            return str(json.loads(line)["id"])
        except (ValueError, KeyError, RecursionError):
            return ""
    return line.partition("\t")[0]
