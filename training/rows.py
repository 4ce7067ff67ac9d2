"""The rows that a distillation stage learns from, drawn from fetched data sets."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path

from drdecr.corpus import SkippedLines, read_pairs, read_passages, read_qrels, read_queries
from drdecr.errors import InputError
from training.data.texts import text_key


@dataclass(frozen=True, slots=True)
class Row:
    """A query in any language, the same in English, and a passage that answers it.

    In parallel text the English sentence is its own passage: the foreign sentence asks for it.
    """

    query: str
    english: str
    passage: str


def read_parallel(
    data: Iterable[Path], languages: Sequence[str], longest: int, say: Callable[[str], None] = lambda line: None
) -> dict[str, list[Row]]:
    """Read the parallel pairs of some data sets, by set and language.

    Pairs with more than `longest` characters of English are left out: cut, the two sides would not say the same.
    Languages that a set does not hold are passed over, with a line to `say`. Raises: InputError where there are no
    pairs at all.
    """
    rows: dict[str, list[Row]] = {}
    for root in data:
        missing: list[str] = []
        for lang in languages:
            path = root / "pairs" / f"{lang}.tsv.gz"
            if not path.is_file():
                missing.append(lang)
                continue
            rows.setdefault(f"{root.name}/{lang}", []).extend(
                Row(pair.translation, pair.english, pair.english)
                for pair in read_pairs(path)
                if len(pair.english) <= longest
            )
        if missing:
            say(f"{root} holds nothing in {', '.join(missing)}: passed over (`drdecr data fetch` has --languages)")
    if not any(rows.values()):
        raise InputError(f"no parallel pairs in {', '.join(languages)}; fetch these languages")
    return rows


def read_parallel_files(files: Iterable[Path], longest: int) -> dict[str, list[Row]]:
    """Read files of parallel text, each a source of its own: TSV of source, English, translation, or without source.

    Pairs with another number of fields, or an empty side, are left out: published collections hold some (the released
    code's only filter is the number of fields). Raises: InputError for a file of which nothing is left.
    """
    rows: dict[str, list[Row]] = {}
    for path in files:
        found = [
            Row(pair.translation, pair.english, pair.english)
            for pair in read_pairs(path, source=path.name, skipped=SkippedLines())
            if len(pair.english) <= longest
        ]
        if not found:
            raise InputError("holds no pairs: expected TSV, English and translation, a source before them", path=path)
        rows[str(path)] = found
    return rows


def leave_out_held_out(rows: Mapping[str, list[Row]], data: Iterable[Path]) -> dict[str, list[Row]]:
    """Return the rows without those whose English a data set holds out: a test query, or what answers it.

    The data sets keep their own rows apart; files from elsewhere may say the same.
    """
    held: set[str] = set()
    for root in data:
        answers = {answer for found in read_qrels(root / "qrels.test.trec").values() for answer in found}
        held.update(text_key(query.text) for query in read_queries(root / "queries" / "en.test.tsv"))
        held.update(text_key(one.text) for one in read_passages(root / "passages.jsonl") if one.id in answers)
    return {source: [row for row in some if text_key(row.english) not in held] for source, some in rows.items()}


def read_labelled(data: Iterable[Path], languages: Sequence[str], longest: int) -> dict[str, list[Row]]:
    """Read the training queries of some data sets with their relevant passages, by set and language.

    A passage is cut to `longest` characters, so that teacher and student read the same.
    """
    rows: dict[str, list[Row]] = {}
    for root in data:
        passages = {one.id: one.content[:longest] for one in read_passages(root / "train.passages.jsonl")}
        answers = read_qrels(root / "qrels.train.trec")
        english = {query.id: query.text for query in read_queries(root / "queries" / "en.train.tsv")}
        for lang in languages:
            path = root / "queries" / f"{lang}.train.tsv"
            if path.is_file():
                rows.setdefault(f"{root.name}/{lang}", []).extend(
                    Row(query.text, english[query.id], passages[answer])
                    for query in read_queries(path)
                    if query.id in english
                    for answer in sorted(answers.get(query.id, {}))
                    if answer in passages
                )
    return rows


def language_of(source: str) -> str:
    """Return the language in a source's name: a set's (`debian/ja`), or a file's (`texts/ja.tsv.gz`)."""
    return Path(source).name.split(".")[0]


def choose(rows: Mapping[str, list[Row]], sources: Sequence[str], longest: int | None = None) -> dict[str, list[Row]]:
    """Keep the sources whose name fits a pattern, and their rows of at most `longest` characters of English.

    A source of which nothing is left is left out.
    """
    kept = {
        source: [row for row in some if longest is None or len(row.english) <= longest]
        for source, some in rows.items()
        if any(fnmatchcase(source, pattern) for pattern in sources)
    }
    return {source: some for source, some in kept.items() if some}


def draw(rows: dict[str, list[Row]], count: int, seed: int, emphasis: Mapping[str, float] | None = None) -> list[Row]:
    """Draw `count` rows over the sources, each by the square root of what it has; in random order, by seed.

    `emphasis` multiplies that of the sources whose name fits a pattern (of a shell: `*` fits anything).

    A source, such as a set in a language, gives its rows in shuffled rounds, so that none comes twice before all
    came once.
    """
    chance = random.Random(seed)
    sources = [source for source in sorted(rows) if rows[source]]
    if not sources:
        return []
    factors = [
        prod(factor for pattern, factor in (emphasis or {}).items() if fnmatchcase(source, pattern))
        for source in sources
    ]
    weights = [factor * len(rows[source]) ** 0.5 for source, factor in zip(sources, factors, strict=True)]
    queues: dict[str, list[Row]] = {source: [] for source in sources}
    drawn = []
    for source in chance.choices(sources, weights, k=count):
        if not queues[source]:
            queues[source] = chance.sample(rows[source], len(rows[source]))
        drawn.append(queues[source].pop())
    return drawn
