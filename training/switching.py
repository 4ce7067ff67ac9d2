"""Code switching: English text in which words of another language stand for their English.

Qin et al. 2020, "CoSDA-ML: Multi-Lingual Code-Switching Data Augmentation for Zero-Shot Cross-Lingual NLP". Parallel
text is rare outside of manuals and interfaces, dictionaries are not: a switched sentence asks for the English one,
and its foreign words learn what they mean inside of a text.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from tokenizers import Tokenizer

from training.rows import Row, language_of

Lexicon = Mapping[str, Sequence[str]]
"""English in lower case -> its translations, the most common first."""

_MOST_WORDS = 3
_LONGEST = 30
# Translations that are so much rarer than the most common one (in nats) are taken for other meanings.
_RARER = 1.5
_MOST_TRANSLATIONS = 2
# Of a sentence that is worth learning from.
_FEWEST_WORDS = 2
_LEAST_SHARE = 0.25
# The library's list lacks some auxiliaries, and "does" would be taken for the plural of "doe".
_FUNCTION_WORDS = ENGLISH_STOP_WORDS | {"did", "does", "doing", "having", "shall"}
_JOINED = frozenset(("ja", "th", "zh"))
# Words, and what is between them, in turns: a letter with an accent does not end a word.
_PARTS = re.compile(r"[^\W\d_](?:[^\W\d_]|['-])*|[\W\d_]+")


def read_lexicon(rows: Iterable[Row], rarity: Callable[[Sequence[str]], Sequence[float]]) -> Lexicon:
    """Return what a dictionary's rows say of short English terms; `rarity` tells the common translations."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        english = row.english.lower()
        if len(english.split()) <= _MOST_WORDS and len(row.query) <= _LONGEST and english != row.query.lower():
            found.setdefault(english, {})[row.query] = None
    rare = iter(rarity([word for words in found.values() for word in words]))
    lexicon = {}
    for english, words in found.items():
        ranked = sorted((next(rare), word) for word in words)
        common = [word for cost, word in ranked if cost <= ranked[0][0] + _RARER]
        lexicon[english] = common[:_MOST_TRANSLATIONS]
    return lexicon


def rarity_by_pieces(tokenizer: Path) -> Callable[[Sequence[str]], list[float]]:
    """Return what tells how rare words are by the pieces of a `tokenizer.json`, whose entries lie by frequency.

    The sum over a word's pieces of the logarithm of their rank (Zipf's law), in nats.
    """
    pieces = Tokenizer.from_file(str(tokenizer))
    pieces.no_padding()
    pieces.no_truncation()

    def rarity(words: Sequence[str]) -> list[float]:
        encoded = pieces.encode_batch_fast(list(words), add_special_tokens=False)
        return [sum(math.log(number + 2) for number in one.ids) for one in encoded]

    return rarity


def switch(text: str, lexicon: Lexicon, share: float, chance: random.Random, *, joined: bool = False) -> str | None:
    """Put translations in the place of about `share` of the words that have one, but for function words.

    `joined` writes neighbours of another language without a space between them. None where too little of the text was
    switched to learn from it.
    """
    parts = _PARTS.findall(text)
    switched: list[tuple[str, bool]] = []
    words = changed = at = 0
    while at < len(parts):
        count, translation = 1, None
        if parts[at][0].isalpha():
            if parts[at].lower() not in _FUNCTION_WORDS and chance.random() < share:
                count, translation = _longest(parts, at, lexicon, chance)
            words += count
            changed += count if translation else 0
        switched.append((translation or parts[at], translation is not None))
        at += 2 * count - 1
    if changed < _FEWEST_WORDS or changed < _LEAST_SHARE * words:
        return None
    return "".join(
        part
        for number, (part, _) in enumerate(switched)
        if not (joined and part == " " and all(one for _, one in switched[number - 1 : number + 2 : 2]))
    ).strip()


def switched_rows(
    english: Sequence[str], dictionaries: Mapping[str, Sequence[Row]], count: int, tokenizer: Path, seed: int
) -> dict[str, list[Row]]:
    """Return up to `count` rows for each language of the files of dictionaries, by `switched/LANG`."""
    rarity = rarity_by_pieces(tokenizer)
    languages: dict[str, list[Row]] = {}
    for source, some in dictionaries.items():
        languages.setdefault(language_of(source), []).extend(some)
    rows = {}
    for lang, entries in languages.items():
        chance = random.Random(f"{seed}/{lang}")
        lexicon = read_lexicon(entries, rarity)
        asked = (
            (switch(text, lexicon, chance.uniform(0.5, 1), chance, joined=lang in _JOINED), text)
            for text in chance.sample(list(english), min(count, len(english)))
        )
        rows[f"switched/{lang}"] = [Row(query, text, text) for query, text in asked if query is not None]
    return rows


def _longest(parts: Sequence[str], at: int, lexicon: Lexicon, chance: random.Random) -> tuple[int, str | None]:
    """Translate the longest term that begins with the word at `at`: how many words it has, and a translation."""
    for count in range(_MOST_WORDS, 0, -1):
        term = parts[at : at + 2 * count - 1]
        if len(term) < 2 * count - 1 or any(gap != " " for gap in term[1::2]):
            continue
        english = "".join(term).lower()
        if found := lexicon.get(english) or lexicon.get(english.removesuffix("s")):
            return count, chance.choice(found)
    return 1, None
