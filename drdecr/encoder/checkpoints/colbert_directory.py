"""The directories of colbert-ai, version 2: Stanford's own, PLAID-X's and jina-colbert's.

sentence-transformers reads their weights. What it leaves out is read here from `artifact.metadata`: markers that are
ids and not text, the skip list as colbert-ai computes it, the similarity, and lengths.
"""

from __future__ import annotations

import string
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drdecr.encoder.checkpoints.expressing import Reading
from drdecr.encoder.checkpoints.formats import read_json
from drdecr.encoder.settings import Expansion, StudentSettings
from drdecr.encoder.torch_runtime import fast_tokenizer, load_model
from drdecr.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder
    from transformers import PreTrainedTokenizerBase

METADATA = "artifact.metadata"
# What colbert-ai's ColBERTConfig takes for a key that a checkpoint does not store.
_DEFAULTS: dict[str, Any] = {
    "query_token_id": "[unused0]",
    "doc_token_id": "[unused1]",
    "query_maxlen": 32,
    "doc_maxlen": 220,
    "mask_punctuation": True,
    "attend_to_mask_tokens": False,
    "similarity": "cosine",
}
_SIMILARITIES = ("cosine", "l2")


def read_colbert_directory(source: Path, *, compat: bool, trust_remote_code: bool) -> Reading:
    """Read a colbert-ai directory.

    `compat` puts after the marker what the tokenisers before 2023 left there, where they left something: they wrote
    ". " before the text and overwrote one piece of it, but XLM-R makes two of it.

    Raises: ModelError.
    """
    config = read_json(source / "config.json")
    if config.get("auto_map") and not trust_remote_code:
        raise ModelError(
            f"{source}: brings its own model code (auto_map in config.json), which would run on this machine; "
            "read it, then repeat with --trust-remote-code"
        )
    metadata = read_json(source / METADATA)
    assumed = [f"{key} = {value!r}: not stored" for key, value in _DEFAULTS.items() if metadata.get(key) is None]
    read = _DEFAULTS | {key: value for key, value in metadata.items() if value is not None}
    check_similarity(source, str(read["similarity"]), assumed)
    model = load_model(source, device="cpu", trust_remote_code=trust_remote_code)
    tokenizer = model.tokenizer
    fit_lengths(read, model, assumed)
    markers = {side: _marker(tokenizer, str(read[f"{side}_token_id"]), assumed) for side in ("query", "doc")}
    prefixes = {side: (marker,) for side, marker in markers.items()}
    if compat:
        left = tuple(tokenizer.encode(". ", add_special_tokens=False)[1:])
        if left:
            assumed.append(f"pieces {left} follow the marker: tokenisers before 2023 left them (--compat)")
        prefixes = {side: prefix + left for side, prefix in prefixes.items()}
    settings = StudentSettings(
        name=source.name,
        dim=int(model.get_embedding_dimension()),
        query_length=int(read["query_maxlen"]),
        passage_length=int(read["doc_maxlen"]),
        query_prefix=prefixes["query"],
        passage_prefix=prefixes["doc"],
        score_frame=True,
        query_expansion=Expansion(
            token_id=tokenizer.mask_token_id,
            length=int(read["query_maxlen"]),
            attended=bool(read["attend_to_mask_tokens"]),
        ),
        never_scored=(tokenizer.pad_token_id,),
        passage_skip=first_pieces(tokenizer, string.punctuation) if read["mask_punctuation"] else (),
        pad_id=tokenizer.pad_token_id,
        unknown_id=tokenizer.unk_token_id,
    )
    fast_tokenizer(model)
    return Reading(model, settings, assumed)


def check_similarity(source: Path, similarity: str, assumed: list[str]) -> None:
    """Accept what MaxSim by dot product ranks alike. Raises: ModelError for another similarity."""
    if similarity not in _SIMILARITIES:
        raise ModelError(f"{source}: similarity {similarity!r}; only {' and '.join(_SIMILARITIES)} are supported")
    if similarity == "l2":
        assumed.append("similarity l2 becomes the dot product: the same ranking on unit vectors, score = 2 dot - 2")


def fit_lengths(read: dict[str, Any], model: MultiVectorEncoder, assumed: list[str]) -> None:
    """Cut the lengths to how many tokens the encoder has positions for."""
    longest = int(model[0].max_seq_length or sys.maxsize)
    for key in ("query_maxlen", "doc_maxlen"):
        if int(read[key]) > longest:
            assumed.append(f"{key} becomes {longest}: the encoder reads no more than that")
            read[key] = longest


def first_pieces(tokenizer: PreTrainedTokenizerBase, symbols: Sequence[str]) -> tuple[int, ...]:
    """Return the first piece of each symbol alone, as ColBERT's punctuation list; on XLM-R often the bare space."""
    return tuple(sorted({tokenizer.encode(symbol, add_special_tokens=False)[0] for symbol in symbols}))


def _marker(tokenizer: PreTrainedTokenizerBase, token: str, assumed: list[str]) -> int:
    found = int(tokenizer.convert_tokens_to_ids(token))
    if found == tokenizer.unk_token_id:
        assumed.append(f"marker {token!r} is not in the vocabulary; as in colbert-ai the unknown piece stands for it")
    return found
