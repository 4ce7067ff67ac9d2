"""Which words of a dictionary a word may be a form of."""

from __future__ import annotations

from collections.abc import Iterator

import simplemma

# Larkey et al. 2007, "Light Stemming for Arabic Information Retrieval": articles and what is written together with
# them, then pronouns and endings. What remains has three letters at least.
_BEFORE = ("وال", "بال", "كال", "فال", "ولل", "لل", "ال", "و", "ب", "ل", "ف", "ك")
_AFTER = ("ها", "هم", "هن", "كم", "نا", "ات", "ان", "ون", "ين", "ية", "ه", "ة", "ي", "ا", "ت")
# The last letter of many words changes before an ending.
_CHANGED = "ت"
_UNCHANGED = "ة"
_PLURALS = ("ات",)
_FEWEST = 3


def base_forms(word: str, lang: str) -> Iterator[str]:
    """Yield other words, in lower case, that a word may be a form of, the likeliest first."""
    lemma = _lemma(word, lang)
    if lemma == word.lower() and lang == "de":
        lemma = _lemma(word.title(), lang)  # a noun, which lists of frequencies write small
    if lemma != word.lower():
        yield lemma
    if lang == "ar":
        yield from light_stems(lemma)
        yield from light_stems(word)


def light_stems(word: str) -> Iterator[str]:
    """Yield an Arabic word without what may be written together with it, from the longest to the shortest."""
    cut = [word.removeprefix(part) for part in _BEFORE if word.startswith(part)]
    for stem in (word, *(one for one in cut if len(one) >= _FEWEST)):
        yield stem
        if not stem.endswith(_UNCHANGED):
            yield f"{stem}{_UNCHANGED}"
        for part in _AFTER:
            rest = stem.removesuffix(part)
            if rest != stem and len(rest) >= _FEWEST:
                yield rest
                if part in _PLURALS:
                    yield f"{rest}{_UNCHANGED}"
                elif rest.endswith(_CHANGED):
                    yield f"{rest.removesuffix(_CHANGED)}{_UNCHANGED}"


def _lemma(word: str, lang: str) -> str:
    try:
        return str(simplemma.lemmatize(word, lang=lang)).lower()
    except ValueError:  # a language that the library does not know
        return word.lower()
