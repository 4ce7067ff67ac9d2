"""The held-out part of a fetched data set, ready to be ranked and scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from drdecr.corpus import Passage, Qrels, Query, read_passages, read_qrels, read_queries
from drdecr.errors import InputError, UsageError
from training.evaluation.measures import Run, Scores, score_run

FEWEST_QUERIES = 50
"""A language with fewer held-out queries than this is left out of a mean over languages: it would be noise."""
_CHARACTERS = 300_000


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The collection to search, the queries by language, the same queries in English, the judgments of them all."""

    passages: Sequence[Passage]
    queries: dict[str, list[Query]]
    english: list[Query]
    qrels: Qrels


def load_held_out(
    data: Path, languages: Sequence[str] | None = None, *, limit: int | None = None, fewest: int = FEWEST_QUERIES
) -> HeldOut:
    """Read the evaluation part of a data directory.

    `languages` None takes every language with at least `fewest` queries; `limit` keeps that many queries a language,
    chosen by the SHA-256 of their ids, so that a smaller limit is a part of a larger one.

    Raises: InputError where `data` holds no such part; UsageError for a language that it lacks.
    """
    folder = data / "queries"
    found = sorted(path.name.split(".")[0] for path in folder.glob("*.test.tsv") if path.name != "en.test.tsv")
    if not found:
        raise InputError("no held-out queries here; run `drdecr data fetch` again", path=folder)
    if languages is not None and (lacking := sorted(set(languages) - set(found))):
        raise UsageError(f"{data} has no held-out queries in {', '.join(lacking)}; it has {', '.join(found)}")
    queries = {lang: _first(list(read_queries(folder / f"{lang}.test.tsv")), limit) for lang in languages or found}
    if languages is None:
        queries = {lang: some for lang, some in queries.items() if len(some) >= fewest}
    asked = {query.id for some in queries.values() for query in some}
    return HeldOut(
        passages=list(read_passages(data / "demo.passages.jsonl")),
        queries=queries,
        english=[query for query in read_queries(folder / "en.test.tsv") if query.id in asked],
        qrels=read_qrels(data / "qrels.test.trec"),
    )


def load_held_out_to_rank(data: Path, languages: Sequence[str] | None = None, *, limit: int) -> HeldOut:
    """Read what `load_held_out` does, cut to what ranks in seconds: the answers, and other passages.

    All of the short texts of one set, the answers and some others of the long ones: 300,000 characters in all, or
    more where the answers alone are more.
    """
    whole = load_held_out(data, languages, limit=limit)
    asked = {query.id for some in whole.queries.values() for query in some}
    wanted = {answer for query in asked for answer in whole.qrels.get(query, {})}
    kept = [passage for passage in whole.passages if passage.id in wanted]
    characters = sum(len(passage.content) for passage in kept)
    for passage in whole.passages:
        if characters >= _CHARACTERS:
            break
        if passage.id not in wanted:
            kept.append(passage)
            characters += len(passage.content)
    return replace(whole, passages=kept)


def score_languages(held_out: HeldOut, rank: Callable[[Sequence[Query]], Run]) -> dict[str, Scores]:
    """Rank and score every language's queries on their own; `rank` is a system."""
    return {
        lang: score_run(rank(queries), held_out.qrels, {query.id for query in queries})
        for lang, queries in held_out.queries.items()
    }


def score_english(held_out: HeldOut, rank: Callable[[Sequence[Query]], Run]) -> dict[str, Scores]:
    """Score a system with the human English queries, a row for each language's queries: the ceiling of that row."""
    run = rank(held_out.english)
    return {
        lang: score_run(run, held_out.qrels, {query.id for query in queries})
        for lang, queries in held_out.queries.items()
    }


def _first(queries: list[Query], limit: int | None) -> list[Query]:
    if limit is None or len(queries) <= limit:
        return queries
    kept = {query.id for query in sorted(queries, key=lambda one: sha256(one.id.encode()).hexdigest())[:limit]}
    return [query for query in queries if query.id in kept]
