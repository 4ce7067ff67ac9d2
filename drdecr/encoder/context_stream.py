"""The contextual stream: an English encoder's own layers over transferred piece embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from drdecr.encoder.packing import Packing, attend_packed, attends_packed


class TransferredEmbedding(nn.Module):
    """A large vocabulary expressed in a small one.

    Piece v is the weighted sum of `neighbours` rows of the English table, as the vocabulary transfer found them
    (Minixhofer et al. 2022, WECHSEL, section 3), and with an `own_width` a vector of its own of that many dimensions,
    mapped to the table's width: what training knows of v that its neighbours do not. Both are stored, and can be
    trained, at a fraction of the size of a whole table.
    """

    rows: Tensor

    def __init__(self, pieces: int, english_pieces: int, width: int, neighbours: int, own_width: int = 0) -> None:
        super().__init__()
        self.own_width = own_width
        self.english = nn.Parameter(torch.zeros(english_pieces, width))
        self.weights = nn.Parameter(torch.zeros(pieces, neighbours))
        self.register_buffer("rows", torch.zeros(pieces, neighbours, dtype=torch.int32))
        if own_width:
            self.own = nn.Parameter(torch.zeros(pieces, own_width))
            self.own_map = nn.Linear(own_width, width, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Embed pieces: (batch, tokens) int64 -> (batch, tokens, width)."""
        neighbours = functional.embedding(self.rows[ids].long(), self.english)
        weights = functional.embedding(ids, self.weights)
        embedded = torch.matmul(weights.unsqueeze(-2), neighbours).squeeze(-2)
        if self.own_width:
            embedded = embedded + self.own_map(functional.embedding(ids, self.own))
        return embedded


class ContextStream(nn.Module):
    """Piece ids to contextual token features, by a BERT encoder that never saw these pieces."""

    def __init__(self, pieces: int, config: dict[str, Any], neighbours: int, own_width: int = 0) -> None:
        super().__init__()
        self.config = BertConfig(**{key: value for key, value in config.items() if key != "model_type"})
        self.embedding = TransferredEmbedding(
            pieces, self.config.vocab_size, self.config.hidden_size, neighbours, own_width
        )
        self.bert = BertModel(self.config, add_pooling_layer=False)
        self.bert.embeddings.word_embeddings = nn.Identity()
        attend_packed(self.bert)

    def forward(self, ids: Tensor, mask: Tensor, added: Tensor) -> Tensor:
        """Encode pieces.

        Shapes: ids and mask (batch, tokens), added (batch, tokens, width), to be added to the piece embeddings.
        Returns (batch, tokens, width), L2-normalised.
        """
        embedded: Tensor = self.embedding(ids) + added
        if not embedded.shape[0]:
            # BertModel cannot view a batch of no texts.
            return embedded
        states = self.bert(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        return functional.normalize(states, dim=-1)

    def packed(self, ids: Tensor, added: Tensor, packing: Packing) -> Tensor:
        """Encode packed pieces: ids (packed,), added (packed, width) -> (packed, width), L2-normalised.

        Raises: RuntimeError where another attention was set, which would read all texts as one.
        """
        if not attends_packed(self.bert):
            raise RuntimeError("this model's attention was changed after attend_packed")
        embedded = self.embedding(ids) + added
        states = self.bert(
            inputs_embeds=embedded.unsqueeze(0), position_ids=packing.positions.unsqueeze(0), packing=packing
        ).last_hidden_state.squeeze(0)
        return functional.normalize(states, dim=-1)
