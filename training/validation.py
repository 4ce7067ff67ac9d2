"""Rows that no stage learns from, and how well a student finds the English of a sentence among them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from drdecr.corpus import Passage, Query
from drdecr.encoder.load import load_encoder
from drdecr.encoder.windows import encode_windows
from training.data.texts import paragraph_keys, text_key
from training.evaluation.measures import Scores, score_run
from training.evaluation.ranking import rank_encoded
from training.rows import Row

Split = tuple[dict[str, list[Row]], dict[str, list[Row]], dict[str, list[Row]]]


def hold_back(parallel: Mapping[str, list[Row]], labelled: Mapping[str, list[Row]], texts: int) -> Split:
    """Take `texts` English sentences of each source out of what is learned from, with all that says the same.

    They are chosen by the SHA-256 of the sentence; what differs in case, white space and Unicode composition alone is
    one sentence. Returns what is left of `parallel` and of `labelled`, and the rows held back, by source.
    """
    validation: dict[str, list[Row]] = {}
    for source, rows in parallel.items():
        first = {row.english: row for row in reversed(rows)}
        distinct: dict[str, Row] = {}
        for english in sorted(first, key=lambda one: hashlib.sha256(one.encode()).digest()):
            if len(distinct) == texts:
                break
            distinct.setdefault(text_key(english), first[english])
        validation[source] = list(distinct.values())
    return without(parallel, validation), without(labelled, validation), validation


def score_validation(student: Path, validation: Mapping[str, list[Row]]) -> dict[str, Scores]:
    """Score a student on each source: foreign sentences as queries, all held-back English sentences as passages."""
    encoder = load_encoder(student)
    passages = [Passage(str(at), text) for at, text in enumerate(_english(validation))]
    number = {passage.text: passage.id for passage in passages}
    encoded = encode_windows(encoder, [passage.text for passage in passages])
    scores = {}
    for source, rows in validation.items():
        queries = [Query(f"q{at}", row.query) for at, row in enumerate(rows)]
        run = rank_encoded(encoder, queries, encoded, [passage.id for passage in passages])
        qrels = {query.id: {number[row.english]: 1} for query, row in zip(queries, rows, strict=True)}
        scores[source] = score_run(run, qrels)
    return scores


def without(rows: Mapping[str, list[Row]], validation: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """Return the rows that do not say what is held back: as their English, their passage or a paragraph of either."""
    held = {text_key(row.english) for some in validation.values() for row in some}
    return {source: [row for row in some if held.isdisjoint(_keys(row))] for source, some in rows.items()}


def _keys(row: Row) -> set[str]:
    keys = paragraph_keys(row.english)
    return keys if row.passage == row.english else keys | paragraph_keys(row.passage)


def _english(validation: Mapping[str, list[Row]]) -> list[str]:
    return list(dict.fromkeys(row.english for rows in validation.values() for row in rows))
