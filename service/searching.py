"""The steps of a search: search the snapshot, fetch the passages, explain the hits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import Passage
from drdecr.encoder.types import Encoded, Encoder, EncoderSpec, Kind, Progress
from drdecr.encoder.windows import Windowed, add_windows
from drdecr.index.backend import Hit, Reach, StageTimes
from drdecr.index.backend import SearchParams as IndexParams
from drdecr.index.filters import Filter
from service.cursors import Cursor, digest
from service.deadline import SOFT_SHARE, Deadline
from service.engine import Engine, Match, ServedIndex, StagedEncoder
from service.explanation import explain_hit, highlight, window_of
from service.problems import FieldError, Problem, shards_missing
from service.schemas import MAX_EXPLAINED_K, MAX_K, HitBody, Range, SearchParams, SnippetBody, Warned
from service.snippets import choose_snippet
from service.stopwatch import Stopwatch

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
    snippet: int | None = None
    cursor: Cursor | None = None
    complete: bool = False

    @property
    def question(self) -> str:
        """Return a digest of what decides the ranking."""
        params = self.params.model_dump()
        return digest(self.query, params, None if self.filter is None else self.filter.canonical)

    @property
    def depth(self) -> int:
        """Return how many of the best passages are looked for.

        All pages but the first are parts of one ranking, the deepest: what a search finds depends on its depth.
        """
        return self.k if self.cursor is None else MAX_K

    @property
    def explained(self) -> bool:
        return self.highlight or self.explain or self.snippet is not None

    def page(self, hits: Sequence[Hit]) -> tuple[Sequence[Hit], bool]:
        """Choose this page's hits from what a search of the `depth` found; tell whether there may be more."""
        if self.cursor is None:
            return hits, self.k <= len(hits) < MAX_K
        rest, shown = self.cursor.rest(hits), len(self.cursor.shown)
        page = rest[: max(0, min(self.k, MAX_K - shown))]
        return page, len(page) < len(rest) and shown + len(page) < MAX_K

    def check(self) -> None:
        """Refuse explanations of too many hits, and a cursor of another question. Raises: Problem 422."""
        if self.cursor is not None:
            self.cursor.require(self.question)
        if self.explained and self.k > MAX_EXPLAINED_K:
            message = f"is at most {MAX_EXPLAINED_K} with highlight, explain or snippet"
            raise Problem(
                422, "invalid_request", f"/k {message}.", errors=[FieldError(pointer="/k", message=message)]
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """What one query got; `missing` names the shards that left a call without an answer."""

    hits: list[HitBody]
    warnings: list[Warned]
    partial: bool = False
    next_cursor: Cursor | None = None
    missing: tuple[str, ...] = ()


def answer(
    encoder: Encoder, index: ServedIndex, wish: Wish, query: Encoded, deadline: Deadline, watch: Stopwatch
) -> Answer:
    """Answer one encoded query; explanations stop when the deadline presses.

    Raises: Problem 504, ClientGoneError between two steps; 503 where shards are missing and the wish is `complete`.
    """
    times = StageTimes()
    reach = Reach(time.perf_counter() + SOFT_SHARE * deadline.remaining_s())
    with watch.stage("search"):
        params = IndexParams(**wish.params.model_dump())
        (hits,) = index.snapshot.search(query, wish.depth, params, filter=wish.filter, times=times, reach=reach)
    page, more = wish.page(hits)
    watch.add("candidates", times.candidates_s * 1_000)
    watch.add("score", times.score_s * 1_000)
    deadline.check()
    with watch.stage("fetch"):
        found = _fetch(index, page, reach)
    _require_all(wish, reach)
    pressed = False
    if wish.explained:
        with watch.stage("explain"):
            pressed = _explain_all(index, wish, query, found, deadline, reach)
    missing = tuple(sorted(reach.missing))
    return Answer(
        [each.body for each in found],
        query_warnings(encoder, query),
        partial=pressed or bool(missing),
        next_cursor=_next_cursor(index, wish, page) if more else None,
        missing=missing,
    )


def warm_up(engine: Engine) -> None:
    """Search every index once, with all that a search can be asked for."""
    wish = Wish("warm-up", 10, highlight=True, explain=True, params=SearchParams())
    watch = Stopwatch()
    for index in engine.indexes.values():
        query = encode(engine.encoder, [wish.query], "query", watch)
        answer(engine.encoder, index, wish, query, Deadline(60_000), watch)


def encode(
    encoder: StagedEncoder, texts: Sequence[str], kind: Kind, watch: Stopwatch, deadline: Deadline | None = None
) -> Encoded:
    """Encode texts, counting the time. Raises: Problem 504, ClientGoneError between two batches of many texts."""
    with watch.stage("tokenise"):
        tokens = encoder.tokenize(texts, kind)
    with watch.stage("encode"):
        return encoder.encode_tokens(tokens, progress=_checking(deadline))


def encode_passages(encoder: StagedEncoder, texts: Sequence[str], deadline: Deadline, watch: Stopwatch) -> Windowed:
    """Encode passages whole, as an index holds them, counting the time. Raises: as `encode`."""

    def encode_in_time(some: Sequence[str]) -> Encoded:
        deadline.check()
        return encode(encoder, some, "passage", watch, deadline)

    def encode_sentences_in_time(some: Sequence[str]) -> NDArray[np.float32]:
        deadline.check()
        with watch.stage("encode"):
            return encoder.encode_sentences(some, progress=_checking(deadline))

    return add_windows(encode_in_time(texts), texts, encode_in_time, encode_sentences_in_time, encoder.spec)


def _checking(deadline: Deadline | None) -> Progress | None:
    return None if deadline is None else lambda _: deadline.check()


def relevance(query: Encoded, passages: Windowed, spec: EncoderSpec) -> NDArray[np.float32]:
    """Score each passage against one query as an index would (see `EncoderSpec`), (passages,)."""
    windows, firsts = passages.windows, passages.bounds[:-1]
    if not len(query.vectors):
        return np.zeros(len(passages), dtype=np.float32)
    # A window, or a passage, without tokens scores nothing.
    best = np.zeros((len(windows), len(query.vectors)), dtype=np.float32)
    for number in range(len(windows)):
        rows = windows.tokens_of(number)
        if len(rows):
            best[number] = (query.vectors @ rows.T).max(axis=1)
    sentences = np.zeros(len(windows), dtype=np.float32)
    if query.sentences is not None and windows.sentences is not None:
        sentences = spec.sentence_weight * len(query.vectors) * (windows.sentences @ query.sentences[0])
    nearest = best.sum(axis=1)
    scores: NDArray[np.float32]
    if spec.closeness:
        whole = np.maximum.reduceat(best, firsts).sum(axis=1)
        scores = whole + spec.closeness * np.maximum.reduceat(nearest, firsts)
        scores += np.maximum.reduceat(sentences, firsts)
    else:
        scores = np.maximum.reduceat(nearest + sentences, firsts)
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


def _fetch(index: ServedIndex, hits: Sequence[Hit], reach: Reach) -> list[_Found]:
    passages = index.snapshot.passages_of(hits, reach=reach)
    if reach.missing:
        # A shard may have gone between its search and this.
        hits = [hit for hit in hits if hit.id in passages]
    return [_Found(hit, passages[hit.id], _body(hit, passages[hit.id])) for hit in hits]


def _body(hit: Hit, passage: Passage) -> HitBody:
    return HitBody(
        id=hit.id,
        score=round(float(hit.score), 6),
        title=passage.title,
        text=passage.text,
        metadata=passage.metadata,
        window=None if hit.window is None else window_of(passage, hit.window),
    )


def _explain_all(
    index: ServedIndex, wish: Wish, query: Encoded, found: Sequence[_Found], deadline: Deadline, reach: Reach
) -> bool:
    """Explain hits, and cut their snippets; tell whether the deadline left some without.

    Hits of a shard that gives no answer are left without too; `reach` names it.

    Raises: Problem 504, ClientGoneError; 503 where a shard gives no answer and the wish is `complete`.
    """
    pressed = False
    for each in found:
        deadline.check()
        pressed = pressed or deadline.pressing
        matches = None if pressed else index.snapshot.explain(query, each.hit.position, reach=reach)
        _require_all(wish, reach)
        if matches is not None:
            _explain(wish, query, each, matches)
        elif wish.snippet is not None:
            _cut(each.body, each.passage.text, [], wish.snippet)
    return pressed


def _require_all(wish: Wish, reach: Reach) -> None:
    if reach.missing and wish.complete:
        raise shards_missing(reach.missing)


def _explain(wish: Wish, query: Encoded, found: _Found, matches: Sequence[Match]) -> None:
    marks = highlight(found.passage, matches) if wish.highlight or wish.snippet is not None else []
    if wish.highlight:
        found.body.highlights = marks
    if wish.snippet is not None:
        _cut(found.body, found.passage.text, marks, wish.snippet)
    if wish.explain:
        found.body.explanation = explain_hit(
            wish.query, query.spans.tolist(), found.passage, found.hit.score, matches
        )


def _cut(body: HitBody, text: str, marks: Sequence[Range], max_chars: int) -> None:
    start, end = choose_snippet(text, [(mark.start, mark.end) for mark in marks if mark.field == "text"], max_chars)
    body.snippet = SnippetBody(start=start, end=end, text=text[start:end])
    body.text = None


def _next_cursor(index: ServedIndex, wish: Wish, page: Sequence[Hit]) -> Cursor:
    """Go on after a page; a hit whose shard went away before its passage came counts as shown, so that pages end."""
    before = frozenset[int]() if wish.cursor is None else wish.cursor.shown
    return Cursor(
        version=index.snapshot.version,
        question=wish.question,
        shown=before.union(hit.position for hit in page),
    )
