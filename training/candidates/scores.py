"""A teacher's scores of candidate lists: computed once, kept on disk, used by every run that asks for the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.types import Encoder, Progress
from drdecr.errors import ModelError
from training.candidates.lists import CandidateLists, Candidates, english_of
from training.json_file import write_json

_ROWS_AT_ONCE = 256


class Scorer(Protocol):
    """Anything that scores the passages of some lists with their English queries."""

    @property
    def fingerprint(self) -> str:
        """What tells one scorer from another in the cache."""
        ...

    def score(self, rows: Sequence[Candidates]) -> NDArray[np.float32]:
        """Return the scores, (rows, ways) float32."""
        ...


class TeacherScorer:
    """A late-interaction teacher: MaxSim, and the sentence vectors' part where it has them."""

    def __init__(self, teacher: Encoder, *, mean: bool = False) -> None:
        self.teacher = teacher
        self.mean = mean

    @property
    def fingerprint(self) -> str:
        return f"{self.teacher.spec.fingerprint} mean={self.mean}"

    def score(self, rows: Sequence[Candidates]) -> NDArray[np.float32]:
        """Encode each query and each passage once, however many rows name it."""
        numbers: dict[str, int] = {}
        listed = [[numbers.setdefault(one, len(numbers)) for one in row.passages] for row in rows]
        asked: dict[str, int] = {}
        asks = [asked.setdefault(english_of(row), len(asked)) for row in rows]
        queries = self.teacher.encode(list(asked), "query")
        passages = self.teacher.encode(list(numbers), "passage")
        weight = self.teacher.spec.sentence_weight
        scores = np.zeros((len(rows), len(rows[0].passages)), np.float32)
        for at, (ask, candidates) in enumerate(zip(asks, listed, strict=True)):
            query = queries.tokens_of(ask)
            if not len(query):
                continue
            for way, candidate in enumerate(candidates):
                passage = passages.tokens_of(candidate)
                total = float((query @ passage.T).max(axis=1).sum()) if len(passage) else 0.0
                if queries.sentences is not None and passages.sentences is not None:
                    total += weight * len(query) * float(queries.sentences[ask] @ passages.sentences[candidate])
                scores[at, way] = total / len(query) if self.mean else total
        return scores


class CrossEncoderScorer:
    """A cross-encoder that reads query and passage together, by sentence-transformers."""

    def __init__(self, folder: Path) -> None:
        """Load a directory. Raises: ModelError."""
        from sentence_transformers import CrossEncoder

        try:
            self.model: Any = CrossEncoder(str(folder), local_files_only=True)
        except Exception as problem:  # the library wraps nothing
            raise ModelError(
                f"{folder}: cannot be read as a cross-encoder ({type(problem).__name__}: {problem})"
            ) from None
        if self.model.num_labels != 1:
            raise ModelError(f"{folder}: gives {self.model.num_labels} numbers a pair; a scorer gives one")
        self._fingerprint = _fingerprint_of(folder)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def score(self, rows: Sequence[Candidates]) -> NDArray[np.float32]:
        pairs = list(dict.fromkeys((english_of(row), passage) for row in rows for passage in row.passages))
        # The logit: a sigmoid would press good candidates together.
        from torch.nn import Identity

        found = self.model.predict(pairs, activation_fn=Identity(), show_progress_bar=False, convert_to_numpy=True)
        known = dict(zip(pairs, np.asarray(found, np.float32).reshape(-1).tolist(), strict=True))
        return np.array([[known[english_of(row), passage] for passage in row.passages] for row in rows], np.float32)


def stored_scores(
    scorer: Scorer, lists: CandidateLists, ways: int, cache: Path, *, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Score all lists, or open what an earlier call left in `cache` for the same ones and the same scorer.

    A call that was interrupted goes on where it stopped. Returns (rows, ways) float32, memory-mapped.
    """
    key = _key(scorer, lists)
    folder = cache / key[:24]
    folder.mkdir(parents=True, exist_ok=True)
    file, done = folder / "scores.f32", folder / "done.json"
    if not done.is_file():
        finished = (file.stat().st_size // (4 * ways)) if file.is_file() else 0
        with file.open("r+b" if file.is_file() else "wb") as out:
            out.truncate(finished * 4 * ways)
            out.seek(0, 2)
            if progress is not None and finished:
                progress(finished)
            for start in range(finished, len(lists), _ROWS_AT_ONCE):
                rows = [lists[row] for row in range(start, min(start + _ROWS_AT_ONCE, len(lists)))]
                out.write(scorer.score(rows).astype(np.float32).tobytes())
                out.flush()
                if progress is not None:
                    progress(len(rows))
        write_json(done, {"key": key, "rows": len(lists), "ways": ways})
    return np.memmap(file, np.float32, "r", shape=(len(lists), ways))


def _key(scorer: Scorer, lists: CandidateLists) -> str:
    total = hashlib.sha256(scorer.fingerprint.encode())
    for row in range(len(lists)):
        one = lists[row]
        total.update(json.dumps([one.english, one.passages]).encode())
    return total.hexdigest()


def _fingerprint_of(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in (".safetensors", ".bin", ".json", ".model", ".txt"):
            total.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
