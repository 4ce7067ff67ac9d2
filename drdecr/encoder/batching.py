"""Tokenised texts through a model in length-bucketed batches, and its answers back in the order of the texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.settings import StudentSettings
from drdecr.encoder.text_tokens import TextTokens
from drdecr.encoder.types import Encoded, Progress

Floats = NDArray[np.float32]
Forward = Callable[[NDArray[np.int64], NDArray[np.int64]], tuple[Floats, Floats | None, Floats | None]]
"""ids and mask (batch, tokens) -> token vectors (batch, tokens, dim), L2-normalised; sentence vectors (batch,
sentence_dim); how much each token counts in a query (batch, tokens), above 0. The latter two where there are any."""

SentenceForward = Callable[[NDArray[np.int64], NDArray[np.int64]], Floats | None]
"""ids and mask (batch, tokens) -> sentence vectors (batch, sentence_dim), where there are any."""

BATCH_TOKENS = 4096


def encode_tokens(
    tokens: Sequence[TextTokens],
    forward: Forward,
    settings: StudentSettings,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> Encoded:
    """Run a model over tokenised texts; padding and unscored tokens are dropped.

    What tells queries from passages is done here: the model treats them alike.
    """
    sentence_dim = settings.sentence_dim
    offsets = np.zeros(len(tokens) + 1, np.int64)
    np.cumsum([len(text.scored) for text in tokens], out=offsets[1:])
    vectors = np.empty((int(offsets[-1]), settings.dim), np.float32)
    sentences = np.zeros((len(tokens), sentence_dim), np.float32) if sentence_dim else None
    empty = sum(len(text.ids) == 0 for text in tokens)
    if progress and empty:
        progress(empty)
    for batch in batches([len(text.ids) for text in tokens], batch_tokens):
        token_vectors, sentence_vectors, weights = forward(
            *_padded([tokens[text] for text in batch], settings.pad_id)
        )
        for row, text in enumerate(batch):
            scored = tokens[text].scored
            vectors[offsets[text] : offsets[text + 1]] = token_vectors[row, scored]
            if weights is not None and tokens[text].kind == "query" and len(scored):
                counts = weights[row, scored]
                vectors[offsets[text] : offsets[text + 1]] *= (counts / counts.mean())[:, np.newaxis]
            if sentences is not None and sentence_vectors is not None:
                sentences[text] = _sentence(sentence_vectors[row], tokens[text], settings)
        if progress:
            progress(len(batch))
    return Encoded(
        vectors=vectors,
        offsets=offsets,
        sentences=sentences,
        spans=np.concatenate([np.empty((0, 2), np.int32), *(text.spans for text in tokens)]),
        truncated=np.array([text.truncated for text in tokens], np.bool_),
        unknown=np.array([text.unknown for text in tokens], np.float32),
    )


def encode_sentences(
    tokens: Sequence[TextTokens],
    forward: SentenceForward,
    settings: StudentSettings,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> Floats:
    """Run a model over tokenised texts for their sentence vectors alone, (texts, sentence_dim), without a prior."""
    found = np.zeros((len(tokens), settings.sentence_dim), np.float32)
    for batch in batches([len(text.ids) for text in tokens], batch_tokens):
        vectors = forward(*_padded([tokens[text] for text in batch], settings.pad_id))
        if vectors is not None:
            found[batch] = vectors
        if progress:
            progress(len(batch))
    return found


def _sentence(sentence: Floats, text: TextTokens, settings: StudentSettings) -> Floats:
    prior, tokens = settings.length_prior, len(text.scored)
    if text.kind == "passage":
        return sentence if prior is None else prior.of_passage(sentence, tokens, settings.sentence_weight)
    ramp = np.float32(min(1.0, tokens / settings.sentence_ramp))
    return ramp * (sentence if prior is None else prior.of_query(sentence))


def concatenate(parts: Sequence[Encoded]) -> Encoded:
    """Join encoded texts in their order; there must be at least one part."""
    sentences = [part.sentences for part in parts if part.sentences is not None]
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return Encoded(
        vectors=np.concatenate([part.vectors for part in parts]),
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)]),
        sentences=np.concatenate(sentences) if sentences else None,
        spans=np.concatenate([part.spans for part in parts]),
        truncated=np.concatenate([part.truncated for part in parts]),
        unknown=np.concatenate([part.unknown for part in parts]),
    )


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group positions by length, so that a padded batch holds at most `budget` tokens.

    A length above the budget makes a batch of its own; a length of 0 is in no batch.
    """
    batch: list[int] = []
    for position in sorted((position for position, length in enumerate(lengths) if length), key=lengths.__getitem__):
        if batch and lengths[position] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def _padded(texts: Sequence[TextTokens], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    longest = max(len(text.ids) for text in texts)
    ids = np.full((len(texts), longest), pad_id, np.int64)
    mask = np.zeros((len(texts), longest), np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = text.ids
        mask[row, : text.attended] = 1
    return ids, mask
