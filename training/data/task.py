"""A retrieval task with parallel text beside it, and the rules that every data set of ours keeps.

Queries are judged by text. A translation counts only if it says something else than the English text and stands for
one English query alone. No text, query or paragraph, English or translated, lies on both sides of the split.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from drdecr.corpus import ParallelPair, Passage
from training.data.texts import paragraph_keys, text_key

QUERIES_PER_LANGUAGE = 500
DEMO_PASSAGES = 6000


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """A human English query, its human translations by language, and the ids of the passages that answer it."""

    id: str
    english: str
    translations: Mapping[str, str]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataSet:
    """What `drdecr data fetch` writes: passages to search, queries on both sides of the split, training pairs.

    `demo` is the collection that `test` is evaluated on; `train_passages` holds nothing of the held-out part.
    """

    name: str
    passages: Sequence[Passage]
    demo: Sequence[Passage]
    train_passages: Sequence[Passage]
    train: Sequence[TaskQuery]
    test: Sequence[TaskQuery]
    pairs: Mapping[str, Sequence[ParallelPair]]
    facts: Mapping[str, object] = field(default_factory=dict)


class Meanings:
    """Counts, for each language, which English texts a translation stands for."""

    def __init__(self) -> None:
        self._english: dict[tuple[str, str], set[str]] = defaultdict(set)

    def add(self, lang: str, english: str, translation: str) -> None:
        self._english[lang, text_key(translation)].add(text_key(english))

    def is_clear(self, lang: str, english: str, translation: str) -> bool:
        """Return whether the translation differs from the English text and stands for no other one."""
        return text_key(translation) != text_key(english) and len(self._english[lang, text_key(translation)]) == 1


def keep_clear(queries: Iterable[TaskQuery], meanings: Meanings) -> list[TaskQuery]:
    """Drop unclear translations, then the queries that have none left."""
    kept = []
    for query in queries:
        clear = {
            lang: text for lang, text in query.translations.items() if meanings.is_clear(lang, query.english, text)
        }
        if clear:
            kept.append(replace(query, translations=clear))
    return kept


def cap_by_language(queries: Iterable[TaskQuery], limit: int = QUERIES_PER_LANGUAGE) -> list[TaskQuery]:
    """Take at most `limit` queries a language, those with the most translations first, then by SHA-256 of the id."""
    taken: Counter[str] = Counter()
    kept = []
    for query in sorted(queries, key=lambda one: (-len(one.translations), _digest(one.id))):
        wanted = {lang: text for lang, text in query.translations.items() if taken[lang] < limit}
        if wanted:
            taken.update(wanted.keys())
            kept.append(replace(query, translations=wanted))
    return sorted(kept, key=lambda one: one.id)


def held_out_texts(queries: Iterable[TaskQuery], passages: Mapping[str, Passage]) -> set[str]:
    """Return the keys of all held-out texts: queries, their translations, the paragraphs that answer them."""
    keys: set[str] = set()
    for query in queries:
        keys.update(map(text_key, (query.english, *query.translations.values())))
        for answer in query.answers:
            keys |= paragraph_keys(passages[answer].text)
    return keys


def without_texts(queries: Iterable[TaskQuery], banned: set[str], passages: Mapping[str, Passage]) -> list[TaskQuery]:
    """Drop the queries, their translations and their answers that are, or hold, one of the banned texts."""
    kept = []
    for query in queries:
        if text_key(query.english) in banned:
            continue
        translations = {lang: text for lang, text in query.translations.items() if text_key(text) not in banned}
        answers = tuple(one for one in query.answers if banned.isdisjoint(paragraph_keys(passages[one].text)))
        if translations and answers:
            kept.append(replace(query, translations=translations, answers=answers))
    return kept


def texts_on_both_sides(data: DataSet) -> set[str]:
    """Return the keys of texts that training and evaluation share: none, or the split is broken."""
    by_id = {passage.id: passage for passage in data.passages}
    return held_out_texts(data.test, by_id).intersection(_training_keys(data, by_id))


def _training_keys(data: DataSet, by_id: Mapping[str, Passage]) -> Iterator[str]:
    yield from held_out_texts(data.train, by_id)
    for passage in data.train_passages:
        yield from paragraph_keys(passage.text)
    for pairs in data.pairs.values():
        for pair in pairs:
            yield text_key(pair.english)
            yield text_key(pair.translation)


def choose_demo(
    passages: Sequence[Passage], first: Iterable[str], worth: Mapping[str, int], limit: int
) -> list[Passage]:
    """Choose up to `limit` passages: those with an id in `first`, then the worthiest, ties by SHA-256 of the id."""
    answers = set(first)
    ranked = sorted(passages, key=lambda one: (one.id not in answers, -worth.get(one.id, 0), _digest(one.id)))
    chosen = {passage.id for passage in ranked[: max(limit, len(answers))]}
    return [passage for passage in passages if passage.id in chosen]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
