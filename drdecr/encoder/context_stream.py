"""The contextual stream: an English encoder's own layers over transferred piece embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel


class TransferredEmbedding(nn.Module):
    """A large vocabulary expressed in a small one.

    Piece v is the weighted sum of `neighbours` rows of the English table, as the vocabulary transfer found them
    (Minixhofer et al. 2022, WECHSEL, section 3): it is stored, and can be trained, at a fraction of the size.
    """

    rows: Tensor

    def __init__(self, pieces: int, english_pieces: int, width: int, neighbours: int) -> None:
        super().__init__()
        self.english = nn.Parameter(torch.zeros(english_pieces, width))
        self.weights = nn.Parameter(torch.zeros(pieces, neighbours))
        self.register_buffer("rows", torch.zeros(pieces, neighbours, dtype=torch.int32))

    def forward(self, ids: Tensor) -> Tensor:
        """Embed pieces: (batch, tokens) int64 -> (batch, tokens, width)."""
        neighbours = functional.embedding(self.rows[ids].long(), self.english)
        weights = functional.embedding(ids, self.weights)
        return torch.matmul(weights.unsqueeze(-2), neighbours).squeeze(-2)


class ContextStream(nn.Module):
    """Piece ids to contextual token features, by a BERT encoder that never saw these pieces."""

    def __init__(self, pieces: int, config: dict[str, Any], neighbours: int) -> None:
        super().__init__()
        self.config = BertConfig(**{key: value for key, value in config.items() if key != "model_type"})
        self.embedding = TransferredEmbedding(pieces, self.config.vocab_size, self.config.hidden_size, neighbours)
        self.bert = BertModel(self.config, add_pooling_layer=False)
        self.bert.embeddings.word_embeddings = nn.Identity()

    def forward(self, ids: Tensor, mask: Tensor, added: Tensor) -> Tensor:
        """Encode pieces.

        Shapes: ids and mask (batch, tokens), added (batch, tokens, width), to be added to the piece embeddings.
        Returns (batch, tokens, width), L2-normalised.
        """
        embedded = self.embedding(ids) + added
        states = self.bert(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        return functional.normalize(states, dim=-1)
