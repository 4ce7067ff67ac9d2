"""Make a late-interaction student of a plain Hugging Face encoder: markers, a projection, a mask."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from tokenizers import AddedToken
from torch import nn

from drdecr.encoder.settings import StudentSettings, write_settings
from drdecr.errors import ModelError

QUERY_MARKER = "[Q]"
PASSAGE_MARKER = "[D]"
QUERY_LENGTH = 32
PASSAGE_LENGTH = 180
_PROBE = "Where is Ouagadougou?"


def is_plain_encoder(folder: Path) -> bool:
    """Return whether a directory holds an encoder alone: no student of ours, and no published ColBERT."""
    if (folder / "modules.json").is_file() or not (folder / "config.json").is_file():
        return False
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        return False
    return "HF_ColBERT" not in (config.get("architectures") or []) and not (folder / "artifact.metadata").is_file()


def make_student(encoder: Path, out: Path, *, dim: int, seed: int, markers: bool = True) -> Path:
    """Write a student: the encoder's token states, projected to `dim` without bias and L2-normalised.

    The markers are two new pieces of the vocabulary, put after the begin token; neither they nor the begin and end
    tokens nor padding are scored. Without `markers` the encoder keeps its vocabulary, as the literal recipe needs it.
    New weights are drawn by `seed`.

    Raises: ModelError where the encoder cannot be read, or its tokenizer does not keep a marker apart from the text.
    """
    torch.manual_seed(seed)
    try:
        transformer = Transformer(str(encoder), query_length=QUERY_LENGTH, document_length=PASSAGE_LENGTH)
    except Exception as problem:  # the library wraps nothing
        raise ModelError(f"{encoder}: cannot be read as an encoder ({type(problem).__name__}: {problem})") from None
    tokenizer = transformer.tokenizer
    prompts: dict[str, str] = {}
    if markers:
        prompts = {"query": QUERY_MARKER, "document": PASSAGE_MARKER}
        new = [AddedToken(marker, normalized=False, special=True) for marker in prompts.values()]
        tokenizer.add_special_tokens({"additional_special_tokens": new})
        # Made to a multiple of 8 the table would hold rows that no piece has.
        transformer.model.resize_token_embeddings(len(tokenizer))
        _check_markers(transformer, prompts, encoder)
    around = [token for token in dict.fromkeys((_begin(tokenizer), _end(tokenizer))) if token is not None]
    mask = MultiVectorMask(skiplist_words=[*around, *prompts.values()], skiplist_tasks=["query", "document"])
    projection = Dense(
        transformer.get_embedding_dimension(),
        dim,
        bias=False,
        activation_function=nn.Identity(),
        module_input_name="token_embeddings",
    )
    modules = [transformer, projection, mask, Normalize(module_input_name="token_embeddings")]
    student = MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts or None)
    student.save_pretrained(str(out), create_model_card=False)
    ids = [int(tokenizer.convert_tokens_to_ids(marker)) for marker in prompts.values()]
    write_settings(
        out,
        StudentSettings(
            name=encoder.name,
            dim=dim,
            query_length=QUERY_LENGTH,
            passage_length=PASSAGE_LENGTH,
            query_prefix=tuple(ids[:1]),
            passage_prefix=tuple(ids[1:]),
            never_scored=tuple(int(tokenizer.convert_tokens_to_ids(token)) for token in around),
            pad_id=int(tokenizer.pad_token_id or 0),
            unknown_id=tokenizer.unk_token_id,
        ),
    )
    return out


def _check_markers(transformer: Transformer, prompts: dict[str, str], encoder: Path) -> None:
    """Raise ModelError unless a marked text reads as begin, marker, and then just what it reads as alone."""
    tokenizer = transformer.tokenizer
    alone = tokenizer(_PROBE)["input_ids"]
    for marker in prompts.values():
        marked = tokenizer(marker + _PROBE)["input_ids"]
        if marked != [alone[0], int(tokenizer.convert_tokens_to_ids(marker)), *alone[1:]]:
            raise ModelError(
                f"{encoder}: its tokenizer does not keep the marker {marker} apart from the text after it"
            )


def _begin(tokenizer: object) -> str | None:
    found = getattr(tokenizer, "cls_token", None) or getattr(tokenizer, "bos_token", None)
    return None if found is None else str(found)


def _end(tokenizer: object) -> str | None:
    found = getattr(tokenizer, "sep_token", None) or getattr(tokenizer, "eos_token", None)
    return None if found is None else str(found)
