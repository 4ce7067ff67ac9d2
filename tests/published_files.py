"""The files that the shipped recipes for XOR-TyDi read, in small and in the published formats."""

from __future__ import annotations

import json
import random
from pathlib import Path

from fabricated_data_set import DEEDS, THINGS, translate

LANGUAGES = ("ar", "bn", "fi", "ja", "ko", "ru", "te")
NAMES = [f"{thing} {deed}" for thing in THINGS for deed in DEEDS]


def write_published_files(root: Path, lists: int = 40) -> Path:
    """Write xor-tydi/ into a directory: triples of ids, queries, DPR's collection, parallel text of two columns."""
    place = root / "xor-tydi"
    for folder in ("nq", "xor", "parallel"):
        (place / folder).mkdir(parents=True)
    passages = [dpr_line(str(at), f'a {name} for "the" desktop', name) for at, name in enumerate(NAMES, start=1)]
    _write(place / "psgs_w100.tsv", ["id\ttext\ttitle", *passages])
    chance = random.Random(0)
    triples = []
    for _ in range(lists):
        asked = chance.randrange(len(NAMES))
        other = chance.choice([at for at in range(len(NAMES)) if at != asked])
        triples.append(json.dumps([asked, asked + 1, other + 1]))
    english = [f"{at}\t{name}" for at, name in enumerate(NAMES)]
    for folder in ("nq", "xor"):
        _write(place / folder / "triples.json", triples)
    _write(place / "nq" / "queries.tsv", english)
    _write(place / "xor" / "queries.en.tsv", english)
    _write(place / "xor" / "queries.tsv", [f"{at}\t{translate(name, 'ru')}" for at, name in enumerate(NAMES)])
    for lang in LANGUAGES:
        pairs = [f"{name}\t{translate(name, 'ja' if lang == 'ja' else 'ru')}" for name in NAMES]
        _write(place / "parallel" / f"{lang}.tsv", [*pairs, "one field only"])
    return place


def dpr_line(number: str, text: str, title: str) -> str:
    """Write a passage as psgs_w100.tsv does: the text in quotes, the title too where it holds some."""
    return "\t".join([number, _quoted(text), _quoted(title) if '"' in title else title])


def _quoted(field: str) -> str:
    doubled = field.replace('"', '""')
    return f'"{doubled}"'


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
