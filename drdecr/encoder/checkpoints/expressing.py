"""A model and the settings that its format gave, said in sentence-transformers' own terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from drdecr.encoder.settings import Expansion, StudentSettings
from drdecr.encoder.torch_runtime import TorchEncoder

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder

# Ten scripts, punctuation, and one text longer than any limit of a tiny model.
SAMPLES = (
    "Which package converts images between formats?",
    "كيف أثبت خط الإنترنت؟",
    "東京の天気はどうですか。",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ",
    "Как настроить принтер в сети?",
    "सौर ऊर्जा क्या है?",
    "서울의 인구는 얼마입니까?",
    "Πού είναι η Ακρόπολη;",
    "מהי בירת צרפת?",
    "বাংলা ভাষা কোথায় বলা হয়?",
    "One, two; three. " * 200,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A checkpoint as it was read. `assumed` says in sentences what the checkpoint does not say itself."""

    model: MultiVectorEncoder
    settings: StudentSettings
    assumed: list[str] = field(default_factory=list)


def express(model: MultiVectorEncoder, settings: StudentSettings) -> None:
    """Make sentence-transformers read texts as the settings say: markers, lengths, expansion, skip list.

    What it cannot say is left out; `difference` measures that.
    """
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    tokenizer = model.tokenizer
    prefixes = {"query": settings.query_prefix, "document": settings.passage_prefix}
    pieces = {task: tokenizer.convert_ids_to_tokens(list(ids)) for task, ids in prefixes.items()}
    _register(tokenizer, [piece for side in pieces.values() for piece in side])
    model.prompts = {task: "".join(f"{piece} " for piece in side) for task, side in pieces.items()}
    first = model[0]
    first.query_expansion = None
    first.query_length = settings.query_length
    first.document_length = settings.passage_length
    first.query_expansion = _expansion(tokenizer, settings.query_expansion)
    words = tokenizer.convert_ids_to_tokens(list(settings.passage_skip))
    for module in model:
        if isinstance(module, MultiVectorMask):
            module.skiplist_words = words
            module.skiplist_tasks = ["document"]
            module.resolve_with_tokenizer(tokenizer)


def difference(model: MultiVectorEncoder, encoder: TorchEncoder, texts: Sequence[str] = SAMPLES) -> float:
    """Return the largest difference of sentence-transformers' own vectors to ours; infinite for other counts."""
    ours = encoder.encode(texts, "query"), encoder.encode(texts, "passage")
    theirs = (
        model.encode_query(list(texts), convert_to_numpy=True, show_progress_bar=False),
        model.encode_document(list(texts), convert_to_numpy=True, show_progress_bar=False),
    )
    largest = 0.0
    for encoded, reference in zip(ours, theirs, strict=True):
        for text, vectors in enumerate(reference):
            own = encoded.tokens_of(text)
            if own.shape != vectors.shape:
                return float("inf")
            largest = max(largest, float(np.abs(own - vectors).max(initial=0.0)))
    return largest


def _register(tokenizer: Any, pieces: list[str]) -> None:
    """Make a tokenizer read markers in a prompt as the single pieces that they are."""
    from transformers import AddedToken

    known = set(tokenizer.all_special_tokens)
    tokens = [
        AddedToken(piece, normalized=False, special=True) for piece in dict.fromkeys(pieces) if piece not in known
    ]
    if tokens:
        tokenizer.add_special_tokens({"additional_special_tokens": tokens}, replace_extra_special_tokens=False)


def _expansion(tokenizer: Any, expansion: Expansion | None) -> dict[str, Any] | None:
    if expansion is None:
        return None
    token = tokenizer.convert_ids_to_tokens(expansion.token_id)
    return {"strategy": "fixed", "attend": expansion.attended, "length": expansion.length, "token": token}
