"""How much each token of a query counts: a weight for every piece, which the length of its vector carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from sentence_transformers.base.modules import Module
from torch import Tensor, nn


class QueryWeights(Module):  # type: ignore[misc]
    """Scale a query's token vectors, so that MaxSim counts rare pieces for more than "the" and "?".

    The vectors of a query of n scored tokens get the lengths n w_i / (w_1 + … + w_n), whose mean is 1: MaxSim keeps
    its range, and a student with equal weights is one without this module. Passages stay as they are.
    Adds `token_weights` (batch, tokens), the weights w before they are divided, for runtimes that scale by
    themselves; in a query also `query_weights` (batch, tokens), those lengths.
    """

    config_keys: list[str] = ["pieces"]  # noqa: RUF012 (the name and type are the library's)
    forward_kwargs: set[str] = {"task"}  # noqa: RUF012

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.log_weights = nn.Parameter(torch.zeros(pieces))

    def forward(self, features: dict[str, Tensor], task: str | None = None) -> dict[str, Tensor]:
        if "input_ids" not in features:
            return features
        weights = nn.functional.embedding(features["input_ids"], self.log_weights.unsqueeze(-1)).squeeze(-1).exp()
        features["token_weights"] = weights
        if task == "query":
            lengths = lengths_of(weights, features["attention_mask"].bool())
            features["query_weights"] = lengths
            features["token_embeddings"] = features["token_embeddings"] * lengths.unsqueeze(-1)
        return features

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        Path(output_path).mkdir(parents=True, exist_ok=True)
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Self:
        hub = {key: kwargs.get(key) for key in ("token", "cache_folder", "revision")}
        hub |= {"subfolder": subfolder, "local_files_only": bool(kwargs.get("local_files_only"))}
        module = cls(**cls.load_config(model_name_or_path, **hub))
        cls.load_torch_weights(model_name_or_path, model=module, **hub)
        return module


def lengths_of(weights: Tensor, scored: Tensor) -> Tensor:
    """Turn weights into vector lengths whose mean over a query's scored tokens is 1, and 0 elsewhere.

    Shapes: weights (batch, tokens) float, above 0; scored (batch, tokens) bool. Returns (batch, tokens).
    """
    counted = weights * scored
    total = counted.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return counted * scored.sum(dim=1, keepdim=True) / total
