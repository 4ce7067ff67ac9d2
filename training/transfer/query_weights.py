"""Untrained query weights: a piece counts by how rare it is, in the language where it is most common."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

# idf to this power. Of 1, 1.5, 2 and 3, the least and the most were worse on development questions; between, all
# within noise.
POWER = 1.5
# A piece is taken to be in no fewer than this share of texts: the sample does not tell rarer ones apart.
RAREST = 5e-4
# What a piece without a letter or digit counts beside the rarest piece.
_OF_NO_WORD = 1e-3
_TEXTS = 3000


def fit_query_weights(
    tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]], pieces: int, *, seed: int = 0
) -> Tensor:
    """Return the logarithm of each piece's weight, (pieces,), 0 for the rarest.

    A weight is idf (Spärck Jones 1972) to the power of 1.5, by the share of `texts` that hold the piece, taken in
    the language where that share is largest. `texts` are by language; of each, some thousands are read.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    share = torch.full((pieces,), RAREST)
    for lang in sorted(texts):
        some = random.Random(seed).sample(list(texts[lang]), min(_TEXTS, len(texts[lang])))
        held = Counter(piece for encoding in tokenizer.encode_batch_fast(some) for piece in set(encoding.ids))
        for piece, count in held.items():
            share[piece] = max(float(share[piece]), count / len(some))
    # A piece that every text holds has no weight; its logarithm must be finite.
    weights = (-share.clamp(max=0.99).log()) ** POWER
    weights /= weights.max()
    for entry, index in vocabulary.items():
        if not _is_of_a_word(entry):
            weights[index] = _OF_NO_WORD
    return weights.clamp(min=_OF_NO_WORD).log()


def _is_of_a_word(piece: str) -> bool:
    return any(unicodedata.category(character)[0] in "LNM" for character in piece)
