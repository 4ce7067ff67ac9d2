"""What an encoder is to everything that uses one: `Encoder`, its `EncoderSpec`, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.length_prior import LengthPrior

Kind = Literal["query", "passage"]
Progress = Callable[[int], None]
"""Called with the number of texts finished since the last call."""


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What a snapshot and a service must know of a student.

    `sentence_dim` is 0 for a student without sentence vectors. Relevance of a passage to a query of n
    token vectors is MaxSim + `sentence_weight` x n x dot(sentence vectors).
    With `closeness` above 0 the windows of a passage are its sentences (`drdecr.encoder.sentences`), and relevance is
    MaxSim over all of them + closeness x the best one's MaxSim + sentence_weight x n x the best one's dot.
    `length_prior` lies in the last dimension of the sentence vectors, and a query's vector is shorter where it has
    few tokens (`StudentSettings.sentence_ramp`).
    `sides_apart` says that a text is read in one way as a query and in another as a passage: with a prefix, with
    tokens added or left out.
    `fingerprint` is the SHA-256 (hex) of the student's weights, tokenizer and settings; the same for every
    runtime that serves the student.
    """

    name: str
    fingerprint: str
    dim: int
    sentence_dim: int
    sentence_weight: float
    query_length: int
    passage_length: int
    closeness: float = 0.0
    length_prior: LengthPrior | None = None
    sides_apart: bool = False


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token vectors of some texts, ragged, and their sentence vectors.

    Shapes: vectors (tokens, dim) float32, each row L2-normalised, but for the queries of a student with query
    weights: the rows of each have lengths of mean 1; offsets (texts + 1,) int64, text i owns
    rows offsets[i]:offsets[i + 1]; sentences (texts, sentence_dim) float32, or None; spans (tokens, 2)
    int32, the characters [start, end) of its text that a row stands for; truncated (texts,) bool, the text
    was longer than the limit; unknown (texts,) float32, share of its pieces that the vocabulary lacks.
    """

    vectors: NDArray[np.float32]
    offsets: NDArray[np.int64]
    sentences: NDArray[np.float32] | None
    spans: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    unknown: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def tokens_of(self, text: int) -> NDArray[np.float32]:
        """Return the token vectors of one text, (its tokens, dim)."""
        return self.vectors[self.offsets[text] : self.offsets[text + 1]]

    def select(self, start: int, stop: int) -> Encoded:
        """Return texts [start, stop) as views of the same arrays."""
        low, high = self.offsets[start], self.offsets[stop]
        return Encoded(
            vectors=self.vectors[low:high],
            offsets=self.offsets[start : stop + 1] - low,
            sentences=None if self.sentences is None else self.sentences[start:stop],
            spans=self.spans[low:high],
            truncated=self.truncated[start:stop],
            unknown=self.unknown[start:stop],
        )

    def copy(self) -> Encoded:
        """Return the same in arrays of its own: a view from `select` keeps all that it was taken from."""
        return Encoded(
            vectors=self.vectors.copy(),
            offsets=self.offsets.copy(),
            sentences=None if self.sentences is None else self.sentences.copy(),
            spans=self.spans.copy(),
            truncated=self.truncated.copy(),
            unknown=self.unknown.copy(),
        )


class Encoder(Protocol):
    """Anything that turns texts into token vectors: ONNX Runtime, torch, a fake in a test."""

    @property
    def spec(self) -> EncoderSpec: ...

    def encode(self, texts: Sequence[str], kind: Kind, *, progress: Progress | None = None) -> Encoded:
        """Encode texts in their order. An empty text has no token vectors."""
        ...

    def encode_sentences(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the sentence vectors of parts of passages, (texts, sentence_dim), computing what they take alone.

        They are those that `encode` gives them, but for the length prior, which is the whole passage's; zeros for an
        empty text.
        """
        ...
