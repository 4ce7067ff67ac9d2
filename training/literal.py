"""What the released code does to a text's tokens, point by point (the authors' code, both generations)."""

from __future__ import annotations

import string
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from drdecr.encoder.types import Kind
from drdecr.errors import ModelError
from training.recipe import Literals

MARKERS: dict[Kind, int] = {"query": 9748, "passage": 9749}
"""The code points of an umbrella and a cup, which the released code takes for vocabulary ids."""

SCORED = "literal_scored"
KEPT = "literal_kept"


class LiteralInputs:
    """Rewrites tokenised texts as the released code reads them.

    Beside `input_ids` and `attention_mask` it gives `literal_scored` and `literal_kept`, (batch, tokens) bool: which
    positions enter MaxSim, and which of those keep their vector; the others are zero.
    """

    def __init__(self, literals: Literals, tokenizer: Any, query_tokens: int, passage_tokens: int) -> None:
        if tokenizer.pad_token_id is None or (tokenizer.bos_token_id is None and tokenizer.cls_token_id is None):
            raise ModelError("literal: the student's tokenizer needs a padding and a begin token, as XLM-R's has")
        self.literals = literals
        self.pad_id = int(tokenizer.pad_token_id)
        self.begin_id = int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id)
        self.lengths: dict[Kind, int] = {"query": query_tokens, "passage": passage_tokens}
        self.skipped = (
            sorted({tokenizer.encode(mark, add_special_tokens=False)[0] for mark in string.punctuation})
            if literals.partial_punctuation
            else []
        )
        if literals.code_point_markers and len(tokenizer) <= max(MARKERS.values()):
            raise ModelError(f"literal: a vocabulary of {len(tokenizer)} has no ids {tuple(MARKERS.values())}")

    def __call__(self, features: dict[str, Tensor], kind: Kind) -> dict[str, Tensor]:
        literals = self.literals
        ids, mask = features["input_ids"], features["attention_mask"]
        length = self.lengths[kind]
        if literals.code_point_markers:
            ids, mask = self._marked(ids, mask, kind, length)
        if literals.query_padding if kind == "query" else literals.passage_padding:
            more = length - ids.shape[1]
            ids = functional.pad(ids, (0, more), value=self.pad_id)
            mask = functional.pad(mask, (0, more))
            scored = torch.ones_like(ids, dtype=torch.bool)
        else:
            scored = mask.bool()
        kept = scored.clone()
        if literals.zero_begin == "both" or (literals.zero_begin == "passages" and kind == "passage"):
            kept &= ids != self.begin_id
        if kind == "passage":
            for skipped in self.skipped:
                kept &= ids != skipped
        if not literals.zeros_score:
            scored = kept
        return {**features, "input_ids": ids, "attention_mask": mask, SCORED: scored, KEPT: kept}

    def _marked(self, ids: Tensor, mask: Tensor, kind: Kind, length: int) -> tuple[Tensor, Tensor]:
        """Put the marker after the begin token; a text at the limit loses its last token before the end."""
        if ids.shape[1] >= length:
            full = mask.sum(1) >= length
            # The end token takes the place of the last piece.
            ids, mask = ids[:, :length].clone(), mask[:, :length]
            ids[full, length - 2] = ids[full, length - 1]
            ids, mask = ids[:, : length - 1], mask[:, : length - 1]
        marker = torch.full_like(ids[:, :1], MARKERS[kind])
        return torch.cat([ids[:, :1], marker, ids[:, 1:]], 1), torch.cat([mask[:, :1], mask[:, :1], mask[:, 1:]], 1)


def encode(model: nn.Module, features: dict[str, Tensor], task: str) -> dict[str, Tensor]:
    """Run a model over tokenised texts and leave them as they are; what only the loss reads goes around the model."""
    ours = {key: features[key] for key in (SCORED, KEPT) if key in features}
    given = {key: value for key, value in features.items() if key not in ours}
    return {**model(given, task=task), **ours}


def scored_tokens(features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return a model's token vectors in 32 bits and the mask of those that enter MaxSim; literal where they are.

    Shapes: (batch, tokens, dim) and (batch, tokens) bool.
    """
    tokens = features["token_embeddings"].float()
    if SCORED not in features:
        return tokens, features["attention_mask"].bool()
    return tokens * features[KEPT].unsqueeze(-1), features[SCORED]
