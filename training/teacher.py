"""What the teacher says of English texts: computed once for each text, kept on disk, read back in any order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drdecr.encoder.types import Encoder, Progress
from training.checkpoints import write_json

_TEXTS_AT_ONCE = 1024


class TeacherTokens(Protocol):
    """Token vectors of numbered English texts, stored or computed when they are asked for."""

    def padded(self, texts: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the vectors of some texts, padded to the longest.

        Shapes: (texts, tokens, dim) float32 and the mask of real tokens (texts, tokens) bool.
        """
        ...


class LiveTeacher:
    """A teacher that encodes the texts of each batch anew: for more text than the disk has room for."""

    def __init__(self, teacher: Encoder, texts: Sequence[str]) -> None:
        self.teacher = teacher
        self.texts = texts

    def padded(self, texts: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        encoded = self.teacher.encode([self.texts[text] for text in texts], "passage")
        # Half precision, as stored vectors have: the two kinds teach the same.
        found = TeacherVectors(encoded.vectors.astype(np.float16), encoded.offsets)
        return found.padded(range(len(texts)), device)


class TeacherVectors:
    """Token vectors of English texts, as the teacher gives them; text i owns rows offsets[i]:offsets[i + 1].

    Shapes: vectors (tokens, dim) float16, memory-mapped; offsets (texts + 1,) int64.
    """

    def __init__(self, vectors: NDArray[np.float16], offsets: NDArray[np.int64]) -> None:
        self.vectors = vectors
        self.offsets = offsets

    @classmethod
    def compute(
        cls, teacher: Encoder, texts: Sequence[str], folder: Path, *, progress: Progress | None = None
    ) -> Self:
        """Encode texts with the teacher, or open what an earlier call left in `folder` for the same ones."""
        key = _key(teacher, texts)
        done = folder / "done.json"
        if not done.is_file() or json.loads(done.read_text()) != {"key": key}:
            _write(teacher, texts, folder, progress)
            write_json(done, {"key": key})
        offsets = np.load(folder / "offsets.npy")
        shape = (int(offsets[-1]), teacher.spec.dim)
        vectors = (
            np.memmap(folder / "vectors.f16", np.float16, "r", shape=shape)
            if shape[0]
            else np.zeros(shape, np.float16)
        )
        return cls(vectors, offsets)

    def padded(self, texts: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the vectors of some texts, padded to the longest.

        Shapes: (texts, tokens, dim) float32 and the mask of real tokens (texts, tokens) bool.
        """
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


def _write(teacher: Encoder, texts: Sequence[str], folder: Path, progress: Progress | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "done.json").unlink(missing_ok=True)
    lengths: list[NDArray[np.int64]] = []
    with (folder / "vectors.f16").open("wb") as file:
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = teacher.encode(texts[start : start + _TEXTS_AT_ONCE], "passage", progress=progress)
            part.vectors.astype(np.float16).tofile(file)
            lengths.append(np.diff(part.offsets))
    counts = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
