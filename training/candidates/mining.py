"""Candidates from a snapshot, found by the teacher with the English query."""

from __future__ import annotations

import random
from collections.abc import Sequence

from drdecr.encoder.types import Encoder, Progress
from drdecr.encoder.windows import encode_windows
from drdecr.errors import InputError
from drdecr.index.snapshot import Snapshot
from training.candidates.lists import Candidates, GivenLists, answers_of
from training.evaluation.ranking import relevance_of_passages
from training.recipe import Mining
from training.rows import Row

_QUERIES_AT_ONCE = 256
_PAIRS_AT_ONCE = 32

Hits = list[tuple[str, float]]
"""Passage texts with the teacher's scores, best first."""


def mine_lists(
    rows: Sequence[Row],
    teacher: Encoder,
    mining: Mining,
    ways: int,
    seed: int,
    *,
    labelled: Sequence[Row] | None,
    longest: int | None = None,
    progress: Progress | None = None,
) -> GivenLists:
    """Give each row `ways` passages of the snapshot.

    With `labelled`, all labelled rows that there are, `rows` are some of them. Such a row keeps its relevant passage
    first; hits that answer the same query, or that the teacher scores almost as high as the relevant passage, are
    left out (see `Mining`). A row of parallel text gets its best hit and some of the others. Where hits are too few,
    hits of other queries fill the list.

    Passages are cut to `longest` characters, as those of labelled rows were: else a hit is not known for the answer
    that it is.

    Raises: InputError where even those are too few; ModelMismatchError where the teacher did not build the snapshot.
    """
    chance = random.Random(seed)
    hits = _search(sorted({row.english for row in rows}), teacher, mining, longest, progress)
    pool = sorted({text for found in hits.values() for text, _ in found})
    answers = answers_of(labelled or ())
    relevant = {} if labelled is None else _relevant_scores(rows, hits, teacher)
    lists = []
    for row in rows:
        if labelled is not None:
            first = row.passage
            limit = mining.keep_below * relevant[row.english, row.passage]
            others = [
                text for text, score in hits[row.english] if text not in answers[row.english] and score <= limit
            ]
            banned = answers[row.english] | {text for text, _ in hits[row.english]}
        else:
            texts = [text for text, _ in hits[row.english]]
            if not texts:
                continue
            first, *others = texts
            banned = set(texts)
        chosen = chance.sample(others, min(ways - 1, len(others)))
        if len(chosen) < ways - 1:
            chosen += _fill(pool, banned, ways - 1 - len(chosen), chance)
        lists.append(Candidates(row.query, row.english, (first, *chosen)))
    if not lists:
        raise InputError("the snapshot answers none of the queries", path=mining.snapshot)
    return GivenLists(lists)


def _search(
    queries: Sequence[str], teacher: Encoder, mining: Mining, longest: int | None, progress: Progress | None
) -> dict[str, Hits]:
    found: dict[str, Hits] = {}
    with Snapshot.open(mining.snapshot) as snapshot:
        snapshot.require(teacher.spec)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = queries[start : start + _QUERIES_AT_ONCE]
            results = snapshot.search(teacher.encode(some, "query"), mining.depth)
            texts = snapshot.passages(sorted({hit.id for hits in results for hit in hits}))
            for query, hits in zip(some, results, strict=True):
                found[query] = [(texts[hit.id].content[:longest], hit.score) for hit in hits]
            if progress is not None:
                progress(len(some))
    return found


def _relevant_scores(rows: Sequence[Row], hits: dict[str, Hits], teacher: Encoder) -> dict[tuple[str, str], float]:
    """Return the teacher's score of each row's relevant passage: as a hit, or computed where it is none."""
    scores = {(query, text): score for query, found in hits.items() for text, score in found}
    wanted = list(dict.fromkeys((row.english, row.passage) for row in rows))
    lacking = [pair for pair in wanted if pair not in scores]
    for start in range(0, len(lacking), _PAIRS_AT_ONCE):
        some = lacking[start : start + _PAIRS_AT_ONCE]
        queries = teacher.encode([query for query, _ in some], "query")
        passages = encode_windows(teacher, [text for _, text in some])
        # As the index scores its hits, sentences and all.
        found = relevance_of_passages(queries, passages, teacher.spec).diagonal()
        scores.update(zip(some, found.tolist(), strict=True))
    return scores


def _fill(pool: Sequence[str], banned: set[str], count: int, chance: random.Random) -> list[str]:
    free = [text for text in pool if text not in banned]
    if len(free) < count:
        raise InputError(f"the snapshot's hits are too few for {count} more candidates of a query; lower `ways`")
    return chance.sample(free, count)
