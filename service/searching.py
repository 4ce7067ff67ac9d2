"""The steps of a search: encode the queries, search the snapshot, fetch the passages, explain the hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import Passage
from drdecr.encoder.types import Encoded, Encoder, Kind
from drdecr.index.backend import Hit, StageTimes
from drdecr.index.backend import SearchParams as IndexParams
from drdecr.index.filters import Filter
from service.engine import Engine, ServedIndex, StagedEncoder
from service.explanation import explain_hit, highlight
from service.problems import FieldError, Problem
from service.schemas import MAX_EXPLAINED_K, HitBody, SearchParams, Warned
from service.stopwatch import Stopwatch
from service.work import Deadline

_MOSTLY_UNKNOWN = 0.5


@dataclass(frozen=True, slots=True)
class Wish:
    """What one query wants; `query` is clean (see `service.texts`)."""

    query: str
    k: int
    highlight: bool
    explain: bool
    params: SearchParams
    filter: Filter | None = None

    @property
    def group(self) -> tuple[object, ...]:
        """What queries must share to be searched together."""
        return self.k, self.params, None if self.filter is None else self.filter.canonical

    @property
    def explained(self) -> bool:
        return self.highlight or self.explain

    def check(self) -> None:
        """Refuse explanations of too many hits. Raises: Problem 422."""
        if self.explained and self.k > MAX_EXPLAINED_K:
            message = f"is at most {MAX_EXPLAINED_K} with highlight or explain"
            raise Problem(
                422, "invalid_request", f"/k {message}.", errors=[FieldError(pointer="/k", message=message)]
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """What one query got."""

    hits: list[HitBody]
    warnings: list[Warned]


def search(
    encoder: Encoder, index: ServedIndex, wishes: Sequence[Wish], deadline: Deadline, watch: Stopwatch
) -> list[Answer]:
    """Answer queries that share k, params and filter. Raises: Problem 504 when late between two steps."""
    encoded = encode(encoder, [wish.query for wish in wishes], "query", watch)
    deadline.check()
    first = wishes[0]
    params = IndexParams(**first.params.model_dump())
    times = StageTimes()
    with watch.stage("search"):
        ranked = index.snapshot.search(encoded, first.k, params, filter=first.filter, times=times)
    watch.add("candidates", times.candidates_s * 1_000)
    watch.add("score", times.score_s * 1_000)
    answers = []
    for number, (wish, hits) in enumerate(zip(wishes, ranked, strict=True)):
        deadline.check()
        query = encoded.select(number, number + 1)
        with watch.stage("fetch"):
            found = _fetch(index, hits)
        for each in found if wish.explained else ():
            deadline.check()
            with watch.stage("explain"):
                _explain(index, wish, query, each)
        answers.append(Answer([each.body for each in found], query_warnings(encoder, query)))
    return answers


def warm_up(engine: Engine) -> None:
    """Search every index once, with all that a search can be asked for."""
    wish = Wish("warm-up", 10, highlight=True, explain=True, params=SearchParams())
    for index in engine.indexes.values():
        search(engine.encoder, index, [wish], Deadline(60_000), Stopwatch())


def encode(encoder: Encoder, texts: Sequence[str], kind: Kind, watch: Stopwatch) -> Encoded:
    """Encode texts, counting the time; tokenising apart where the encoder can."""
    if not isinstance(encoder, StagedEncoder):
        with watch.stage("encode"):
            return encoder.encode(texts, kind)
    with watch.stage("tokenise"):
        tokens = encoder.tokenize(texts, kind)
    with watch.stage("encode"):
        return encoder.encode_tokens(tokens)


def maxsim(query: Encoded, passages: Encoded, sentence_weight: float) -> NDArray[np.float32]:
    """Score each passage against one query (DESIGN.md, decision 1). Returns float32 (passages,)."""
    scores = np.zeros(len(passages), dtype=np.float32)
    if not len(query.vectors):
        return scores
    for number in range(len(passages)):
        rows = passages.tokens_of(number)
        if len(rows):
            scores[number] = (query.vectors @ rows.T).max(axis=1).sum()
    if query.sentences is not None and passages.sentences is not None:
        scores += sentence_weight * len(query.vectors) * (passages.sentences @ query.sentences[0])
    return scores


def query_warnings(encoder: Encoder, query: Encoded) -> list[Warned]:
    """Tell what of one query the student could not use."""
    warnings = []
    if query.truncated[0]:
        limit = encoder.spec.query_length
        warnings.append(
            Warned(code="query_truncated", message=f"Query cut at {limit} tokens; the rest was not used.")
        )
    if not len(query.vectors):
        warnings.append(Warned(code="query_empty", message="The student found no token in this query."))
    if query.unknown[0] >= _MOSTLY_UNKNOWN:
        share = round(100 * float(query.unknown[0]))
        message = f"This student hardly knows this script: {share}% of the query's pieces are not in its vocabulary."
        warnings.append(Warned(code="query_unknown", message=message))
    return warnings


@dataclass(frozen=True, slots=True)
class _Found:
    """A hit with its passage, and what the client will read of it."""

    hit: Hit
    passage: Passage
    body: HitBody


def _fetch(index: ServedIndex, hits: Sequence[Hit]) -> list[_Found]:
    passages = index.snapshot.passages([hit.id for hit in hits])
    return [_Found(hit, passages[hit.id], _body(hit, passages[hit.id])) for hit in hits]


def _body(hit: Hit, passage: Passage) -> HitBody:
    return HitBody(
        id=hit.id,
        score=round(float(hit.score), 6),
        title=passage.title,
        text=passage.text,
        metadata=passage.metadata,
    )


def _explain(index: ServedIndex, wish: Wish, query: Encoded, found: _Found) -> None:
    matches = index.snapshot.explain(query, found.hit.position)
    if wish.highlight:
        found.body.highlights = highlight(found.passage, matches)
    if wish.explain:
        found.body.explanation = explain_hit(
            wish.query, query.spans.tolist(), found.passage, found.hit.score, matches
        )
