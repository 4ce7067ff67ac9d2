"""Princeton WordNet 3.0, as a package of Debian has it, and Thai WordNet, which gives its meanings Thai words.

Thoongsup et al. 2009, "Thai WordNet Construction"; the database lies in the wheel of PyThaiNLP.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from drdecr.errors import FetchError
from training.data.dictionaries.dictd import MEANINGS
from training.data.dictionaries.entries import Entry, tidy

PATH = re.compile(r"usr/share/wordnet/data\.(?:noun|verb|adj|adv)")
"""WordNet's files of synsets in the Debian package `wordnet-base`."""

# After an adjective: where it may stand, "galore(ip)".
_POSITION = re.compile(r"\((?:a|p|ip)\)$")


@dataclass(frozen=True, slots=True)
class Synset:
    """A meaning: its English words, the most usual first, and what they mean, with examples."""

    words: tuple[str, ...]
    definition: str


def read_synsets(files: Mapping[str, bytes]) -> dict[str, Synset]:
    """Return the synsets by offset and part of speech (`05279407-n`).

    `files` are WordNet's, by path (`wndb(5WN)`). Raises: FetchError for a file of another kind.
    """
    synsets = {}
    for path, content in sorted(files.items()):
        for line in content.decode("utf-8", "replace").splitlines():
            if line.startswith(" "):  # the licence
                continue
            try:
                facts, definition = line.split(" | ", maxsplit=1)
                offset, _, part, count, *rest = facts.split(" ")
                words = rest[: 2 * int(count, 16) : 2]
            except ValueError:
                raise FetchError(f"{path} is no file of WordNet; fetch the package again") from None
            # A satellite is an adjective; the Thai database does not tell them apart.
            key = f"{offset}-{'a' if part == 's' else part}"
            named = tuple(_POSITION.sub("", word).replace("_", " ") for word in words)
            synsets[key] = Synset(named, definition.strip())
    return synsets


def read_definitions(synsets: Mapping[str, Synset]) -> Iterator[Entry]:
    """Yield each synset as an English text on both sides, `film star, movie star: a star who plays …`."""
    for synset in synsets.values():
        text = f"{', '.join(synset.words)}: {synset.definition}"
        yield Entry(text, text)


def read_thai(database: bytes, synsets: Mapping[str, Synset]) -> Iterator[Entry]:
    """Yield each Thai word of an SQLite database with the English words of its synset.

    Raises: FetchError for another file.
    """
    with closing(sqlite3.connect(":memory:")) as opened:
        try:
            opened.deserialize(database)
            rows = opened.execute("SELECT synsetid, li FROM word_synset ORDER BY synsetid, li").fetchall()
        except sqlite3.Error as problem:
            raise FetchError(f"the Thai WordNet is broken ({problem}); delete the wheel and fetch again") from None
    for synset, word in rows:
        for meaning in synsets[synset].words[:MEANINGS] if synset in synsets else ():
            yield Entry(tidy(word), tidy(meaning))
