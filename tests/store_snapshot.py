"""Write the snapshot that later versions must still read: run once for each released format.

Format 1 has all token vectors whole, format 2 is what a reduction (`--dims`, `--pool`) makes of it, format 3 is of a
student with a closeness, whose windows are sentences.

Example: python tests/store_snapshot.py tests/stored/format-2 8 1.25
    python tests/store_snapshot.py tests/stored/format-3
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from fabricated_vectors import WordEncoder

from drdecr.corpus import Passage
from drdecr.index import EXACT, Snapshot
from indexer.build import build
from indexer.change import add, delete
from indexer.lock import LOCK

ENCODER = WordEncoder(dim=16, sentence_dim=8)
BY_SENTENCE = WordEncoder(dim=16, sentence_dim=8, closeness=0.4)
QUERIES = ("red apple", "blue sky over the sea", "engine of a train", "quiet night")
SUBJECTS = ("apple", "sky", "train", "night", "engine", "sea")
COLOURS = ("red", "blue", "quiet", "old")


def encoder_of(stored: Path) -> WordEncoder:
    return BY_SENTENCE if stored.name == "format-3" else ENCODER


def passages(start: int, stop: int, more: str = "") -> list[Passage]:
    return [
        Passage(
            f"p{n}",
            f"The {COLOURS[n % 4]} {SUBJECTS[n % 6]} of number {n}." + more,
            metadata={"colour": COLOURS[n % 4], "number": n},
        )
        for n in range(start, stop)
    ]


def write_jsonl(path: Path, some: list[Passage]) -> Path:
    lines = (json.dumps({"id": one.id, "text": one.text, "metadata": one.metadata}) for one in some)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def answers(snapshot: Snapshot) -> list[list[tuple[str, float]]]:
    # Queries are the same under both encoders.
    hits = snapshot.search(ENCODER.encode(QUERIES, "query"), 5, EXACT)
    return [[(hit.id, round(hit.score, 4)) for hit in some] for some in hits]


def main() -> None:
    out = Path(sys.argv[1])
    dims, pool = (int(sys.argv[2]), float(sys.argv[3])) if len(sys.argv) > 2 else (None, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        encoder = encoder_of(out)
        more = " It was seen at night over the sea." if encoder is BY_SENTENCE else ""
        first = write_jsonl(Path(folder) / "a.jsonl", passages(0, 24, more))
        build(encoder, first, out / "snapshot", bits=4, dims=dims, pool=pool)
        add(out / "snapshot", encoder, write_jsonl(Path(folder) / "b.jsonl", passages(24, 30)))
        delete(out / "snapshot", ("p3", "p25"))
    (out / "snapshot" / LOCK).unlink()
    with Snapshot.open(out / "snapshot") as snapshot:
        (out / "answers.json").write_text(json.dumps(answers(snapshot), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
