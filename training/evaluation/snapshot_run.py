"""Asking a snapshot the queries that an evaluation scores."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drdecr.corpus import Query
from drdecr.encoder.load import load_encoder
from drdecr.encoder.types import Encoder
from drdecr.errors import UsageError
from drdecr.index.snapshot import Snapshot
from drdecr.progress import ProgressBar
from training.evaluation.measures import Run


@dataclass(frozen=True, slots=True)
class SnapshotRanker:
    """A snapshot and the student that built it."""

    snapshot: Snapshot
    encoder: Encoder

    def rank(self, queries: Sequence[Query], k: int = 100) -> Run:
        """Return the snapshot's hits, as a client of the service would get them."""
        with ProgressBar("Encoding", len(queries), "queries") as bar:
            encoded = self.encoder.encode([query.text for query in queries], "query", progress=bar.advance)
        found = self.snapshot.search(encoded, k)
        return {query.id: {hit.id: hit.score for hit in hits} for query, hits in zip(queries, found, strict=True)}

    def texts(self, passage_ids: Collection[str]) -> dict[str, str]:
        """Return the texts of passages, without their titles."""
        return {key: passage.text for key, passage in self.snapshot.passages(list(passage_ids)).items()}


@contextmanager
def open_snapshot_ranker(snapshot: Path, student: Path | None = None) -> Iterator[SnapshotRanker]:
    """Open a snapshot with its student, by default `student/` beside it.

    Raises: UsageError where no student is to be found; SnapshotError, ModelError, ModelMismatchError.
    """
    place = student or snapshot.resolve().parent / "student"
    if not place.is_dir():
        raise UsageError(f"there is no {place}; name the student that built the snapshot with --student")
    with Snapshot.open(snapshot) as opened:
        encoder = load_encoder(place)
        opened.require(encoder.spec)
        yield SnapshotRanker(opened, encoder)
