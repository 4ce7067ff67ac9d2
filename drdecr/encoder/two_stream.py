"""The embedded student: two streams over the same pieces, as one module that sentence-transformers loads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from sentence_transformers.base.modules import InputModule
from tokenizers import Tokenizer
from torch import Tensor, nn

from drdecr.encoder.context_stream import ContextStream
from drdecr.encoder.ngram_stream import NgramStream
from drdecr.encoder.packing import Packing
from drdecr.encoder.sentence_head import SentenceHead


class TwoStreamEncoder(InputModule):  # type: ignore[misc]
    """Texts to token features (contextual and n-gram, side by side) and a sentence vector.

    A bridge from the n-gram features is added to the contextual stream's piece embeddings: the n-gram stream places
    words of all its languages in one space, which the transferred embeddings do for a part of the pieces only.

    Gives `token_embeddings` (batch, tokens, context width + n-gram width), each half L2-normalised, and
    `sentence_embedding` (batch, n-gram width), L2-normalised. For training, `context_embeddings` is the contextual
    half again, for a teacher of the same width to be learned from, and `token_features` keeps both halves where a
    projection replaces `token_embeddings`. The `attention_mask` that it leaves marks the tokens
    that are scored: real ones, without those of `never_scored` (begin, end, padding).

    While the sentence head is idle, a caller may give `token_rows`, (some,) int64: the texts of the batch that get
    token features. The others get a sentence vector alone, by the n-gram stream, at about a quarter of the cost.
    """

    config_keys: list[str] = [  # noqa: RUF012 (the name and type are the library's)
        "pieces",
        "context_config",
        "ngram_config",
        "neighbours",
        "own_width",
        "never_scored",
        "query_length",
        "passage_length",
    ]
    forward_kwargs: set[str] = {"task"}  # noqa: RUF012
    tokenizer: Tokenizer

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        pieces: int,
        context_config: dict[str, Any],
        ngram_config: dict[str, Any],
        neighbours: int = 8,
        own_width: int = 0,
        never_scored: Sequence[int] = (),
        query_length: int = 64,
        passage_length: int = 256,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.pieces = pieces
        self.context_config = context_config
        self.ngram_config = ngram_config
        self.neighbours = neighbours
        self.own_width = own_width
        self.never_scored = list(never_scored)
        self.query_length = query_length
        self.passage_length = passage_length
        self.context = ContextStream(pieces, context_config, neighbours, own_width)
        self.ngram = NgramStream(pieces, **ngram_config)
        width = int(self.context.config.hidden_size)
        self.sentence_head = SentenceHead(self.ngram.width, width)
        # What the contextual stream reads of the n-gram features; nothing until it is trained.
        self.bridge = nn.Linear(self.ngram.width, width, bias=False)
        nn.init.zeros_(self.bridge.weight)

    @property
    def max_seq_length(self) -> int:
        return self.passage_length

    @property
    def pad_id(self) -> int:
        padding = self.tokenizer.padding
        return int(padding["pad_id"]) if padding else 0

    @property
    def reads_sentences_alone(self) -> bool:
        """Whether `token_rows` may be given."""
        return self.sentence_head.is_idle

    def get_embedding_dimension(self) -> int:
        return int(self.context.config.hidden_size) + self.ngram.width

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Tokenise texts, cut to the limit of their task (or to `max_length`) and padded to the longest.

        Returns `input_ids` and `attention_mask`, (batch, tokens) int64.
        """
        limit = min(self.query_length if task == "query" else self.passage_length, max_length or sys.maxsize)
        texts = [(prompt or "") + str(text) for text in inputs]
        # The tokenizer is set to pad to the longest of a batch; texts are cut first, so it pads too much.
        rows = [encoding.ids[: sum(encoding.attention_mask)] for encoding in self.tokenizer.encode_batch_fast(texts)]
        rows = [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in rows]
        longest = max(map(len, rows), default=0)
        pad = self.pad_id
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], dtype=torch.long)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], dtype=torch.long)
        return {"input_ids": ids, "attention_mask": mask}

    def forward(self, features: dict[str, Tensor], task: str | None = None) -> dict[str, Tensor]:
        ids, mask, rows = features["input_ids"], features["attention_mask"], features.get("token_rows")
        if rows is not None:
            ngram_tokens, sentence = self.ngram(ids, mask)
            ids, mask, ngram_tokens = ids[rows], mask[rows], ngram_tokens[rows]
            context_tokens = self.context(ids, mask, self.bridge(ngram_tokens))
            features["input_ids"] = ids
        else:
            ngram_tokens, sentence, context_tokens = (self._packed if self.training else self._padded)(ids, mask)
        features["context_embeddings"] = context_tokens
        features["token_features"] = torch.cat([context_tokens, ngram_tokens], dim=-1)
        features["token_embeddings"] = features["token_features"]
        special = torch.tensor(self.never_scored, dtype=ids.dtype, device=ids.device)
        # Not torch.isin: what the exporter makes of that has no counterpart in ONNX.
        scored = mask.bool() & ~(ids.unsqueeze(-1) == special).any(dim=-1)
        features["sentence_embedding"] = (
            self.sentence_head(sentence, context_tokens, scored) if rows is None else sentence
        )
        features["attention_mask"] = scored
        return features

    def _padded(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return n-gram features, n-gram sentence vectors and contextual features, computed on all of the batch."""
        tokens, sentence = self.ngram(ids, mask)
        return tokens, sentence, self.context(ids, mask, self.bridge(tokens))

    def _packed(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same of the real tokens, and zeros for the padding: quicker, but no exporter can follow it."""
        packing = Packing.of(mask)
        ids = packing.pack(ids)
        tokens, sentence = self.ngram.packed(ids, packing)
        return packing.pad(tokens), sentence, packing.pad(self.context.packed(ids, self.bridge(tokens), packing))

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)
        self.tokenizer.save(str(Path(output_path) / "tokenizer.json"))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Self:
        hub = {key: kwargs.get(key) for key in ("token", "cache_folder", "revision")}
        hub |= {"subfolder": subfolder, "local_files_only": bool(kwargs.get("local_files_only"))}
        tokenizer = Tokenizer.from_file(cls.load_file_path(model_name_or_path, filename="tokenizer.json", **hub))
        tokenizer.no_truncation()
        module = cls(tokenizer, **cls.load_config(model_name_or_path, **hub))
        cls.load_torch_weights(model_name_or_path, model=module, **hub)
        return module
