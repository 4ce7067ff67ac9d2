"""Token vectors on their way into a segment: written to disk as they are encoded, read back as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.types import Encoded, EncoderSpec
from drdecr.encoder.windows import Windowed
from drdecr.errors import ModelError
from drdecr.index.passages import PassageWriter
from drdecr.index.segment import OFFSETS, SENTENCES, WINDOW_OFFSETS, WINDOWS
from indexer.array_file import ArrayWriter, GrowingArrayWriter

_TOKENS = "spool.f16"
_LARGEST_HALF = 65504.0


class Spool:
    """Writes the vectors of all passages, in their order, and the offsets and sentence vectors of the segment.

    A token vector has `dim` dimensions, which may be fewer than the student's.
    """

    def __init__(self, directory: Path, spec: EncoderSpec, passages: PassageWriter, dim: int) -> None:
        self._path = directory / _TOKENS
        self._spec = spec
        self._dim = dim
        self._passages = passages
        self._files = ExitStack()
        opened = self._files.enter_context
        self._file = opened(self._path.open("wb", buffering=2**20))
        self._directory = directory
        self._offsets = opened(ArrayWriter(directory / OFFSETS, (passages.count + 1,), np.int64))
        self._bounds = opened(ArrayWriter(directory / WINDOWS, (passages.count + 1,), np.int64))
        self._window_offsets = opened(GrowingArrayWriter(directory / WINDOW_OFFSETS, np.int64))
        for file in (self._offsets, self._bounds, self._window_offsets):
            file.append(np.zeros(1, np.int64))
        self._sentences = None
        if spec.sentence_dim:
            self._sentences = opened(GrowingArrayWriter(directory / SENTENCES, np.float16, (spec.sentence_dim,)))
        self._done = 0
        self.windows = 0
        self.tokens = 0
        self.without_tokens = 0
        self.truncated = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, problem, trace)
        if kind is None and self.windows == self._done:
            # One window each: the offsets say it all.
            (self._directory / WINDOWS).unlink()
            (self._directory / WINDOW_OFFSETS).unlink()

    def append(self, passages: Windowed) -> None:
        """Write the next passages. Raises: ModelError for vectors that no index can hold."""
        encoded = passages.windows
        self._check(encoded)
        self._file.write(np.ascontiguousarray(encoded.vectors, dtype="<f2").data)
        offsets = passages.offsets
        self._offsets.append(offsets[1:] + self.tokens)
        self._bounds.append(passages.bounds[1:] + self.windows)
        self._window_offsets.append(encoded.offsets[1:] + self.tokens)
        if self._sentences is not None and encoded.sentences is not None:
            self._sentences.append(encoded.sentences)
        spans: Iterable[NDArray[np.int32]] = ()
        if passages.members is not None:
            spans = passages.members
        elif len(encoded.spans):
            spans = (encoded.spans[offsets[i] : offsets[i + 1]] for i in range(len(passages)))
        # A passage without tokens has none, nor has one of vectors that came without: its spans are zeros.
        self._passages.add_spans((at, each) for at, each in enumerate(spans, start=self._done) if each.any())
        self._done += len(passages)
        self.windows += len(encoded)
        self.tokens += len(encoded.vectors)
        self.without_tokens += int((np.diff(offsets) == 0).sum())
        self.truncated += int(encoded.truncated.sum())

    def vectors(self) -> NDArray[Any]:
        """Map all token vectors, (tokens, dim) float16, once the spool is closed."""
        if self.tokens == 0:
            return np.empty((0, self._dim), np.float16)
        return np.asarray(np.memmap(self._path, dtype="<f2", mode="r").reshape(self.tokens, self._dim))

    def remove(self) -> None:
        """Delete the spooled token vectors; the segment's own files stay."""
        self._path.unlink()

    def _check(self, encoded: Encoded) -> None:
        name = self._spec.name
        if encoded.vectors.ndim != 2 or encoded.vectors.shape[1] != self._dim:
            raise ModelError(f"{name} gave token vectors of shape {encoded.vectors.shape}, expected {self._dim}")
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
