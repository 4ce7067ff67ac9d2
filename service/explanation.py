"""Turns matches of token vectors into characters that a person can look at."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from drdecr.corpus import Passage
from service.engine import Match
from service.schemas import Explanation, PassageSpan, QuerySpan, Range, TokenMatch


def explain_hit(
    query: str, spans: Sequence[Sequence[int]], passage: Passage, score: float, matches: Sequence[Match]
) -> Explanation:
    """Tell what each query token met, in characters of the query and of the passage's title or text.

    `spans` are the query tokens' characters, one for each of `matches`.
    """
    maxsim = float(sum(match.score for match in matches))
    return Explanation(
        maxsim=round(maxsim, 6),
        sentence=round(score - maxsim, 6),
        tokens=[
            TokenMatch(
                query=QuerySpan(start=start, end=end, text=query[start:end]),
                passage=_passage_span(passage, match.span),
                also=[span for span in (_passage_span(passage, each) for each in match.also) if span is not None],
                score=round(float(match.score), 6),
            )
            for match, (start, end) in zip(matches, spans, strict=True)
        ],
    )


def highlight(passage: Passage, matches: Sequence[Match]) -> list[Range]:
    """Return whole words that the better half of the query's tokens met, merged, the title's first."""
    if not matches:
        return []
    threshold = median_low(match.score for match in matches)
    ranges: list[Range] = []
    for match in matches:
        if match.score < threshold:
            continue
        for span in (_passage_span(passage, each) for each in (match.span, *match.also)):
            if span is not None and any(char.isalnum() for char in span.text):
                ranges.append(_whole_words(passage, span))
    return _merged(passage, ranges)


def window_of(passage: Passage, window: tuple[int, int]) -> Range | None:
    """Return the part of a passage's text that a window covers; None for one that covers only the title."""
    span = _passage_span(passage, window)
    return None if span is None or span.field == "title" else Range(field="text", start=span.start, end=span.end)


def _passage_span(passage: Passage, span: tuple[int, int] | None) -> PassageSpan | None:
    """Translate characters of `Passage.content` into those of the title or the text."""
    if span is None:
        return None
    start, end = span
    title = passage.title or ""
    shift = len(passage.content) - len(passage.text)
    if end > shift:
        start, end = max(0, start - shift), min(end - shift, len(passage.text))
        return PassageSpan(field="text", start=start, end=end, text=passage.text[start:end]) if start < end else None
    end = min(end, len(title))
    return PassageSpan(field="title", start=start, end=end, text=title[start:end]) if start < end else None


def _whole_words(passage: Passage, span: Range) -> Range:
    text = _field(passage, span)
    start, end = span.start, span.end
    while start < end and not text[start].isalnum():
        start += 1
    while end > start and not text[end - 1].isalnum():
        end -= 1
    while start and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum():
        end += 1
    return Range(field=span.field, start=start, end=end)


def _merged(passage: Passage, ranges: Sequence[Range]) -> list[Range]:
    """Join ranges that overlap, or between which there is only white space."""
    joined: list[Range] = []
    for span in sorted(ranges, key=lambda item: (item.field != "title", item.start, item.end)):
        last = joined[-1] if joined else None
        gap = _field(passage, span)[last.end : span.start] if last and last.field == span.field else "x"
        if last and not gap.strip():
            joined[-1] = Range(field=last.field, start=last.start, end=max(last.end, span.end))
        else:
            joined.append(span)
    return joined


def _field(passage: Passage, span: Range) -> str:
    return passage.text if span.field == "text" else passage.title or ""
