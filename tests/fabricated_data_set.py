"""A fetched data set in small: four languages by simple spelling rules, two letters apart from English."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from drdecr.corpus import ParallelPair, Passage
from training.data.files import write_data_set
from training.data.task import DataSet, TaskQuery

LANGUAGES = ("de", "ru", "ja", "tr")
THINGS = ("music", "image", "video", "font", "mail", "disk", "network", "printer", "chess", "book", "clock", "map")
DEEDS = ("player", "viewer", "editor", "server", "backup", "search")
_SHIFT = {"de": 1, "ru": 0x0430 - ord("a"), "ja": 0x3041 - ord("a"), "tr": 2}


def translate(text: str, lang: str) -> str:
    """Move every letter: a language that is unlike English, yet always says the same in the same way."""
    return "".join(chr(ord(letter) + _SHIFT[lang]) if "a" <= letter <= "w" else letter for letter in text)


def make_data_set(
    path: Path,
    languages: tuple[str, ...] = LANGUAGES,
    *,
    times_asked: int = 1,
    request: Mapping[str, object] | None = None,
) -> Path:
    """Write a finished data set: 72 passages, the even half to train with, the odd half held out.

    A held-out query is asked `times_asked` times. The set answers `request`, as a fetched one would.
    """
    names = [f"{thing} {deed}" for thing in THINGS for deed in DEEDS]
    passages = [Passage(f"p{i}", f"a {name} for the desktop", name) for i, name in enumerate(names)]
    queries = [
        TaskQuery(f"q{i}", name, {lang: translate(name, lang) for lang in languages}, (f"p{i}",))
        for i, name in enumerate(names)
    ]
    pairs = {
        lang: [
            ParallelPair("made", text, translate(text, lang))
            for text in (f"the {name} is open" for name in names[::2])
        ]
        for lang in languages
    }
    data = DataSet(
        name="fabricated",
        passages=passages,
        demo=passages,
        train_passages=passages[::2],
        train=queries[::2],
        test=[replace(query, id=f"{query.id}-{time}") for time in range(times_asked) for query in queries[1::2]],
        pairs=pairs,
    )
    write_data_set(path, data, request or {"name": "fabricated"})
    return path
