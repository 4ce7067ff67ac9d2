"""Words found by way of a third language: Italian-German and German-English give Italian-English.

Such chains end in wrong meanings often, and seldom in the same one by two languages (Tanaka and Umemura 1994,
"Construction of a Bilingual Dictionary Intermediated by a Third Language"), so two must agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from training.data.dictionaries.entries import Entry

PIVOTS = ("de", "fr", "ja", "nl", "pl", "pt")
"""Languages whose English dictionaries are large."""

_LAST_RANK = 5
_FEWEST = 2
_LONGEST = 40

Ranked = Iterable[tuple[Entry, int]]


def known_english(entries: Ranked) -> dict[str, list[str]]:
    """Return what the words of a pivot mean, in lower case, without what stands late in an article."""
    found: dict[str, list[str]] = {}
    for entry, rank in entries:
        if rank < _LAST_RANK:
            found.setdefault(entry.word.lower(), []).append(entry.english.lower())
    return found


def by_pivots(
    chains: Mapping[str, Sequence[Ranked]], english: Mapping[str, Mapping[str, Sequence[str]]]
) -> Iterator[tuple[Entry, int]]:
    """Yield each pair of a word and its English on which pivots agree, and how many do.

    `chains` holds, for each pivot, entries whose `word` is in the language asked for and whose `english` is in the
    pivot; `english` what the pivots' words mean, as `known_english` has it.
    """
    votes: dict[Entry, set[str]] = defaultdict(set)
    for pivot, dictionaries in chains.items():
        for entries in dictionaries:
            for entry, rank in entries:
                if rank <= _LAST_RANK and len(entry.word) <= _LONGEST:
                    for meaning in english[pivot].get(entry.english.lower(), ()):
                        votes[Entry(entry.word.lower(), meaning)].add(pivot)
    for pair, agreed in votes.items():
        if len(agreed) >= _FEWEST:
            yield pair, len(agreed)
