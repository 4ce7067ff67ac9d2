"""Token vectors on their way into a segment: written to disk as they are encoded, read back as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.types import Encoded, EncoderSpec
from drdecr.errors import ModelError
from drdecr.index.passages import PassageWriter
from drdecr.index.segment import OFFSETS, SENTENCES
from indexer.array_file import ArrayWriter

_TOKENS = "spool.f16"
_LARGEST_HALF = 65504.0


class Spool:
    """Writes the vectors of all passages, in their order, and the offsets and sentence vectors of the segment."""

    def __init__(self, directory: Path, spec: EncoderSpec, passages: PassageWriter) -> None:
        self._path = directory / _TOKENS
        self._spec = spec
        self._passages = passages
        self._file = self._path.open("wb", buffering=2**20)
        self._offsets = ArrayWriter(directory / OFFSETS, (passages.count + 1,), np.int64)
        self._offsets.append(np.zeros(1, np.int64))
        self._sentences = None
        if spec.sentence_dim:
            shape = (passages.count, spec.sentence_dim)
            self._sentences = ArrayWriter(directory / SENTENCES, shape, np.float16)
        self._done = 0
        self.tokens = 0
        self.without_tokens = 0
        self.truncated = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: BaseException | TracebackType | None) -> None:
        self._file.close()
        if self._sentences is not None:
            self._sentences.__exit__(kind, *rest)
        self._offsets.__exit__(kind, *rest)

    def append(self, encoded: Encoded) -> None:
        """Write the next passages. Raises: ModelError for vectors that no index can hold."""
        self._check(encoded)
        self._file.write(np.ascontiguousarray(encoded.vectors, dtype="<f2").data)
        self._offsets.append(encoded.offsets[1:] + self.tokens)
        if self._sentences is not None and encoded.sentences is not None:
            self._sentences.append(encoded.sentences)
        if len(encoded.spans):
            bounds = encoded.offsets
            spans = (encoded.spans[bounds[i] : bounds[i + 1]] for i in range(len(encoded)))
            self._passages.add_spans(self._done, spans)
        self._done += len(encoded)
        self.tokens += len(encoded.vectors)
        self.without_tokens += int((np.diff(encoded.offsets) == 0).sum())
        self.truncated += int(encoded.truncated.sum())

    def vectors(self) -> NDArray[Any]:
        """Map all token vectors, (tokens, dim) float16, once the spool is closed."""
        if self.tokens == 0:
            return np.empty((0, self._spec.dim), np.float16)
        return np.asarray(np.memmap(self._path, dtype="<f2", mode="r").reshape(self.tokens, self._spec.dim))

    def remove(self) -> None:
        """Delete the spooled token vectors; the segment's own files stay."""
        self._path.unlink()

    def _check(self, encoded: Encoded) -> None:
        name = self._spec.name
        if encoded.vectors.ndim != 2 or encoded.vectors.shape[1] != self._spec.dim:
            raise ModelError(f"{name} gave token vectors of shape {encoded.vectors.shape}, expected {self._spec.dim}")
        if self._sentences is not None and (
            encoded.sentences is None or encoded.sentences.shape != (len(encoded), self._spec.sentence_dim)
        ):
            raise ModelError(f"{name} gave no sentence vectors of {self._spec.sentence_dim} dimensions")
        for vectors in _parts(encoded):
            # One comparison finds what is too large for float16, infinities and NaN.
            if not bool((np.abs(vectors) <= _LARGEST_HALF).all()):
                raise ModelError(
                    f"{name} gave a vector that is not finite or too large for float16, near passage {self._done}"
                )


def _parts(encoded: Encoded) -> Iterator[NDArray[np.float32]]:
    yield encoded.vectors
    if encoded.sentences is not None:
        yield encoded.sentences
