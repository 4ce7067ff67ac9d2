"""What words may mean in English, as dictionaries say it, each meaning with a merit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from training.data.dictionaries.entries import Entry
from training.data.words.frequencies import zipf

# A merit is a Zipf value, less for each further word, less for what stands later in an article, more for each further
# language by way of which a word was found.
_EACH_WORD = 0.7
_EACH_RANK = 0.25
_LAST_RANK = 6
_EACH_PIVOT = 0.4
# What is so much below the best is not looked at further.
_BELOW = 3.0
_MOST = 8


class Candidates:
    """The English of words, which are looked up in lower case."""

    def __init__(self, english: Mapping[str, float]) -> None:
        """`english` holds the Zipf values of English words."""
        self._english = english
        self._bonus: dict[str, dict[str, float]] = {}
        self._written: dict[str, str] = {}

    def __contains__(self, word: str) -> bool:
        return word.lower() in self._bonus

    def add(self, entries: Iterable[Entry]) -> None:
        """Take entries as they are."""
        for entry in entries:
            self._add(entry, 0.0)

    def add_ranked(self, entries: Iterable[tuple[Entry, int]]) -> None:
        """Take entries with how much stands before each in its article."""
        for entry, rank in entries:
            self._add(entry, -_EACH_RANK * min(rank, _LAST_RANK))

    def add_pivoted(self, entries: Iterable[tuple[Entry, int]]) -> None:
        """Take entries with the number of languages by way of which each was found."""
        for entry, pivots in entries:
            self._add(entry, _EACH_PIVOT * (pivots - 1))

    def written(self, word: str) -> str:
        """Return a word as the dictionaries write it, which says what is a name, or a German noun."""
        return self._written[word.lower()]

    def merits(self, word: str) -> dict[str, float]:
        """Return the likeliest English of a word with its merit, the best first."""
        found = {
            english: zipf(english, self._english) - _EACH_WORD * english.count(" ") + bonus
            for english, bonus in self._bonus[word.lower()].items()
        }
        ranked = sorted(found, key=lambda english: -found[english])
        least = found[ranked[0]] - _BELOW
        return {english: found[english] for english in ranked[:_MOST] if found[english] >= least}

    def _add(self, entry: Entry, bonus: float) -> None:
        word, english = entry.word.lower(), entry.english.lower()
        self._written.setdefault(word, entry.word)
        known = self._bonus.setdefault(word, {})
        known[english] = max(bonus, known.get(english, bonus))
