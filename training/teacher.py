"""What the teacher says of English texts: computed once for each text, kept on disk, read back in any order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drdecr.encoder.types import Encoder, Kind, Progress
from training.json_file import write_json

_TEXTS_AT_ONCE = 1024


def reading(teacher: Encoder, kind: Kind) -> Kind:
    """Return how a teacher reads the English of one side: as a passage where it reads both sides alike."""
    return kind if teacher.spec.sides_apart else "passage"


class TeacherTokens(Protocol):
    """Token vectors of numbered English texts, stored or computed when they are asked for."""

    def padded(self, texts: Sequence[int], device: torch.device, kind: Kind = "passage") -> tuple[Tensor, Tensor]:
        """Return the vectors of some texts as the teacher reads them on one side, padded to the longest.

        Shapes: (texts, tokens, dim) float32 and the mask of real tokens (texts, tokens) bool.
        """
        ...


class LiveTeacher:
    """A teacher that encodes the texts of each batch anew: for more text than the disk has room for."""

    def __init__(self, teacher: Encoder, texts: Sequence[str]) -> None:
        self.teacher = teacher
        self.texts = texts

    def padded(self, texts: Sequence[int], device: torch.device, kind: Kind = "passage") -> tuple[Tensor, Tensor]:
        encoded = self.teacher.encode([self.texts[text] for text in texts], reading(self.teacher, kind))
        # Half precision, as stored vectors have: the two kinds teach the same.
        found = TeacherVectors(encoded.vectors.astype(np.float16), encoded.offsets)
        return found.padded(range(len(texts)), device)


class TeacherVectors:
    """Token vectors of English texts, as the teacher gives them; text i owns rows offsets[i]:offsets[i + 1].

    `queries` has the same texts read as queries, where the teacher reads those in another way.

    Shapes: vectors (tokens, dim) float16, memory-mapped; offsets (texts + 1,) int64.
    """

    def __init__(
        self, vectors: NDArray[np.float16], offsets: NDArray[np.int64], queries: TeacherVectors | None = None
    ) -> None:
        self.vectors = vectors
        self.offsets = offsets
        self.queries = queries

    @classmethod
    def compute(
        cls, teacher: Encoder, texts: Sequence[str], folder: Path, *, progress: Progress | None = None
    ) -> Self:
        """Encode texts with the teacher, or open what an earlier call left in `folder` for the same ones.

        A teacher that reads the two sides apart reads every text twice: `readings` says how often.
        """
        passages = _stored(teacher, texts, "passage", folder, progress)
        if not teacher.spec.sides_apart:
            return cls(*passages)
        return cls(*passages, TeacherVectors(*_stored(teacher, texts, "query", folder / "queries", progress)))

    def padded(self, texts: Sequence[int], device: torch.device, kind: Kind = "passage") -> tuple[Tensor, Tensor]:
        """Return the vectors of some texts as the teacher reads them on one side, padded to the longest.

        Shapes: (texts, tokens, dim) float32 and the mask of real tokens (texts, tokens) bool.
        """
        if kind == "query" and self.queries is not None:
            return self.queries.padded(texts, device)
        lengths = [int(self.offsets[text + 1] - self.offsets[text]) for text in texts]
        vectors = np.zeros((len(texts), max([*lengths, 1]), self.vectors.shape[1]), np.float32)
        for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            vectors[row, :length] = self.vectors[self.offsets[text] : self.offsets[text] + length]
        mask = torch.arange(vectors.shape[1]).unsqueeze(0) < torch.tensor(lengths).unsqueeze(1)
        return torch.from_numpy(vectors).to(device), mask.to(device)


def _key(teacher: Encoder, texts: Iterable[str]) -> str:
    total = hashlib.sha256(teacher.spec.fingerprint.encode())
    for text in texts:
        total.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return total.hexdigest()


def readings(teacher: Encoder) -> int:
    """Return how often `TeacherVectors.compute` has a teacher read each text."""
    return 2 if teacher.spec.sides_apart else 1


def _stored(
    teacher: Encoder, texts: Sequence[str], kind: Kind, folder: Path, progress: Progress | None
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Return vectors and offsets of texts that are read as one kind, computed where `folder` lacks them."""
    key = {"key": _key(teacher, texts)}
    if not _says(folder / "done.json", key):
        _write(teacher, texts, kind, folder, key, progress)
        write_json(folder / "done.json", key)
    offsets = np.load(folder / "offsets.npy")
    shape = (int(offsets[-1]), teacher.spec.dim)
    vectors = (
        np.memmap(folder / "vectors.f16", np.float16, "r", shape=shape) if shape[0] else np.zeros(shape, np.float16)
    )
    return vectors, offsets


def _write(
    teacher: Encoder,
    texts: Sequence[str],
    kind: Kind,
    folder: Path,
    key: Mapping[str, str],
    progress: Progress | None,
) -> None:
    """Write the vectors of texts, a block after the other; whole blocks of a call that was cut off are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "done.json").unlink(missing_ok=True)
    width = np.dtype(np.float16).itemsize * teacher.spec.dim
    counts = _kept(folder, key, width)
    if progress is not None and len(counts):
        progress(len(counts))
    with (folder / "vectors.f16").open("ab") as vectors, (folder / "counts.i64").open("ab") as counted:
        vectors.truncate(int(counts.sum()) * width)
        counted.truncate(counts.nbytes)
        write_json(folder / "begun.json", key)
        for start in range(len(counts), len(texts), _TEXTS_AT_ONCE):
            part = teacher.encode(texts[start : start + _TEXTS_AT_ONCE], kind, progress=progress)
            part.vectors.astype(np.float16).tofile(vectors)
            vectors.flush()
            np.diff(part.offsets).tofile(counted)
            counted.flush()
    counts = np.fromfile(folder / "counts.i64", np.int64)
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _kept(folder: Path, key: Mapping[str, str], width: int) -> NDArray[np.int64]:
    """Return the numbers of tokens of the texts whose vectors a call for the same ones has left, whole blocks."""
    counts = np.zeros(0, np.int64)
    if _says(folder / "begun.json", key):
        counts = np.fromfile(folder / "counts.i64", np.int64)
        whole = len(counts) // _TEXTS_AT_ONCE * _TEXTS_AT_ONCE
        held = (folder / "vectors.f16").stat().st_size // width
        while whole and counts[:whole].sum() > held:
            whole -= _TEXTS_AT_ONCE
        counts = counts[:whole]
    return counts


def _says(file: Path, key: Mapping[str, str]) -> bool:
    return file.is_file() and json.loads(file.read_text()) == key
