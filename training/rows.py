"""The rows that a distillation stage learns from, drawn from fetched data sets."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from drdecr.corpus import read_pairs, read_passages, read_qrels, read_queries
from drdecr.errors import InputError

LONGEST_TEXT = 1000
"""Characters of a text that are kept: more than a stage's token limits read."""


@dataclass(frozen=True, slots=True)
class Row:
    """A query in any language, the same in English, and a passage that answers it.

    In parallel text the English sentence is its own passage: the foreign sentence asks for it.
    """

    query: str
    english: str
    passage: str


def read_parallel(data: Iterable[Path], languages: Sequence[str]) -> dict[str, list[Row]]:
    """Read the parallel pairs of some data sets, by language. Raises: InputError where there are none at all."""
    rows: dict[str, list[Row]] = {}
    for root in data:
        for lang in languages:
            path = root / "pairs" / f"{lang}.tsv.gz"
            if path.is_file():
                rows.setdefault(lang, []).extend(
                    Row(pair.translation[:LONGEST_TEXT], english := pair.english[:LONGEST_TEXT], english)
                    for pair in read_pairs(path)
                )
    if not any(rows.values()):
        raise InputError(f"no parallel pairs in {', '.join(languages)}; fetch these languages")
    return rows


def read_labelled(data: Iterable[Path], languages: Sequence[str]) -> dict[str, list[Row]]:
    """Read the training queries of some data sets with their relevant passages, by language."""
    rows: dict[str, list[Row]] = {}
    for root in data:
        passages = {one.id: one.content[:LONGEST_TEXT] for one in read_passages(root / "train.passages.jsonl")}
        answers = read_qrels(root / "qrels.train.trec")
        english = {query.id: query.text for query in read_queries(root / "queries" / "en.train.tsv")}
        for lang in languages:
            path = root / "queries" / f"{lang}.train.tsv"
            if path.is_file():
                rows.setdefault(lang, []).extend(
                    Row(query.text, english[query.id], passages[answer])
                    for query in read_queries(path)
                    if query.id in english
                    for answer in sorted(answers.get(query.id, {}))
                    if answer in passages
                )
    return rows


def draw(rows: dict[str, list[Row]], count: int, seed: int) -> list[Row]:
    """Draw `count` rows over the languages, each by the square root of what it has; in random order, by seed.

    A language gives its rows in shuffled rounds, so that none comes twice before all came once.
    """
    chance = random.Random(seed)
    languages = [lang for lang in sorted(rows) if rows[lang]]
    if not languages:
        return []
    weights = [len(rows[lang]) ** 0.5 for lang in languages]
    queues: dict[str, list[Row]] = {lang: [] for lang in languages}
    drawn = []
    for lang in chance.choices(languages, weights, k=count):
        if not queues[lang]:
            queues[lang] = chance.sample(rows[lang], len(rows[lang]))
        drawn.append(queues[lang].pop())
    return drawn
