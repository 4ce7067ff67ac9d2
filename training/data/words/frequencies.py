"""How common words are: wordfreq's lists (Speer 2022), and PyThaiNLP's for Thai, which those lack.

A Zipf value is the logarithm, to base 10, of how often a word occurs in a thousand million words (van Heuven et al.
2014): 7 for "the", 3 for what is rare.
"""

from __future__ import annotations

import gzip
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from math import log10
from pathlib import Path

import msgpack

from drdecr.errors import FetchError
from training.wheels import PinnedWheel, read_member

WORDFREQ = PinnedWheel(
    "wordfreq",
    "3.1.1",
    "wordfreq-3.1.1-py3-none-any.whl",
    "4b1c6ecffc6198be3396d5cf871c4423ca71c907c231348d352dd54d62b97473",
)
LICENCE = "CC BY-SA 4.0 (data of wordfreq)"

_WORDS = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_PURE = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*|[\u0e00-\u0e7f]+")
_THAI = ("pythainlp/corpus/ttc_freq.txt", "pythainlp/corpus/tnc_freq.txt")


def read_frequencies(wheel: Path, lang: str) -> dict[str, float]:
    """Return the words of a language with their Zipf values, the most common first; none of a language it lacks.

    Raises: FetchError for a broken wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            held = set(archive.namelist())
            for size in ("large", "small"):
                if (name := f"wordfreq/data/{size}_{lang}.msgpack.gz") in held:
                    header, *bins = msgpack.unpackb(gzip.decompress(archive.read(name)))
                    if header != {"format": "cB", "version": 1}:
                        raise ValueError(f"{name} has the header {header}")
                    # The bin at n holds words of the frequency 10^(-n/100).
                    return {word: 9 - number / 100 for number, words in enumerate(bins) for word in words}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as problem:
        raise FetchError(f"{wheel} is broken ({problem}); delete it and run the same command again") from None
    return {}


def read_thai_words(wheel: Path) -> list[str]:
    """Return Thai words, the most common first: of textbooks, then of the Thai National Corpus.

    Raises: FetchError for a broken wheel.
    """
    lines = [line for name in _THAI for line in read_member(wheel, name).decode().splitlines()]
    return list(dict.fromkeys(line.split("\t")[0] for line in lines))


def zipf(text: str, frequencies: Mapping[str, float]) -> float:
    """Return the Zipf value of a text: of several words, that of what is rarer than any of them; 0 of the unknown."""
    words = _WORDS.findall(text.lower())
    if not words or not all(word in frequencies for word in words):
        return 0.0
    return -log10(sum(10 ** -frequencies[word] for word in words))


def pure(words: Iterable[str]) -> Iterator[str]:
    """Yield what consists of letters."""
    return (word for word in words if _PURE.fullmatch(word))
