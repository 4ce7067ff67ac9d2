"""What tests of changing snapshots share: passage files, and the searches that they compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fabricated_vectors import WordEncoder

from drdecr.index import EXACT, Snapshot

ENCODER = WordEncoder(16, 8)


def passage_file(path: Path, texts: Mapping[str, str]) -> Path:
    """Write a passage file; the number of words goes into the metadata."""
    records = ({"id": each, "text": text, "metadata": {"words": len(text.split())}} for each, text in texts.items())
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def exact_hits(snapshot: Path, queries: list[str], k: int = 1000) -> list[list[tuple[str, float]]]:
    """Search wide open and return ids and rounded scores, ties in the order of the ids."""
    with Snapshot.open(snapshot, verify=True) as opened:
        answers = opened.search(ENCODER.encode(queries, "query"), k, EXACT)
    return [
        sorted(((hit.id, round(hit.score, 4)) for hit in hits), key=lambda hit: (-hit[1], hit[0])) for hits in answers
    ]


def texts_of(snapshot: Path, ids: list[str]) -> dict[str, str]:
    """Return the texts that a snapshot holds for these ids."""
    with Snapshot.open(snapshot, verify=True) as opened:
        found = opened.passages(ids)
        assert all(opened.position(each) is not None for each in found)
    return {each: passage.text for each, passage in found.items()}
