"""PrimeQA's and the first ColBERT's checkpoints: one pickled file of weights, without tokenizer or architecture.

Two generations: A names weights `roberta.*` or `bert.*`, B puts `model.` before; files of 2022 hold them twice. On
XLM-R both write markers by ids that are ordinary pieces, expand queries by padding, and mask by BERT's rule, "id is
not 0", which on XLM-R is the token that begins a text.
"""

from __future__ import annotations

import re
import string
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drdecr.encoder.checkpoints.colbert_directory import check_similarity, first_pieces, fit_lengths
from drdecr.encoder.checkpoints.expressing import Reading
from drdecr.encoder.checkpoints.unpickle import load_pickled
from drdecr.encoder.settings import Expansion, StudentSettings
from drdecr.encoder.torch_runtime import fast_tokenizer
from drdecr.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder
    from torch import Tensor
    from transformers import PreTrainedModel

# ☔ and ☕: their code points became ids of the vocabulary.
_XLMR_MARKERS = (9748, 9749)
_BERT_MARKERS = ("[unused0]", "[unused1]")
_DEFAULTS: dict[str, Any] = {
    "query_maxlen": 32,
    "doc_maxlen": 180,
    "mask_punctuation": False,
    "similarity": "cosine",
    "attend_to_mask_tokens": False,
}
_NOT_NEEDED = re.compile(r"(^|\.)(pooler\.|embeddings\.position_ids$)")


def read_primeqa(source: Path, *, base: str | None, compat: bool) -> Reading:
    """Read a `.dnn` or `.model` file; nothing in it is run, and the optimizer's state stays on disk.

    `base` is the encoder that it was trained from (a directory, or a name that transformers finds); without it the
    file's own word is taken. `compat` scores what the released code scores: padding after passages, and in generation
    A the token that begins a query.

    Raises: ModelError.
    """
    loaded = load_pickled(source)
    stored = _stored_settings(loaded)
    assumed = [f"{key} = {value!r}: not stored" for key, value in _DEFAULTS.items() if stored.get(key) is None]
    read = _DEFAULTS | {key: value for key, value in stored.items() if value is not None}
    check_similarity(source, str(read["similarity"]), assumed)
    named = base or stored.get("model_type") or stored.get("model")
    if not named:
        raise ModelError(f"{source}: does not name the encoder it was trained from; give its directory as --base")
    generation = (
        "B" if any(key.startswith("model.") for key in map(_without_module, loaded["model_state_dict"])) else "A"
    )
    backbone, projection = _split(source, loaded["model_state_dict"])
    model, tokenizer = _build(source, str(named), backbone, projection)
    fit_lengths(read, model, assumed)
    xlmr = model[0].auto_model.config.model_type.startswith("xlm-roberta")
    if xlmr:
        markers, expansion_id = _XLMR_MARKERS, tokenizer.pad_token_id
        assumed.append(f"markers {markers} and expansion by padding: what PrimeQA's code does on XLM-R")
    else:
        query, passage = tokenizer.convert_tokens_to_ids(list(_BERT_MARKERS))
        markers, expansion_id = (query, passage), tokenizer.mask_token_id
        assumed.append(f"markers {_BERT_MARKERS} and expansion by the mask token: what ColBERT's code does on BERT")
    if max(markers) >= len(tokenizer):
        raise ModelError(
            f"{source}: its markers {markers} are beyond the vocabulary of {named}; is that the right base?"
        )
    # The code writes this before a text and overwrites its first piece by the marker.
    left = tokenizer.encode("$ " if xlmr else ". ", add_special_tokens=False)[1:]
    masked = (
        (tokenizer.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(0)),) if xlmr else (tokenizer.pad_token_id,)
    )
    pads = Expansion(token_id=tokenizer.pad_token_id, length=int(read["doc_maxlen"]), at_most=1)
    punctuation = first_pieces(tokenizer, string.punctuation) if read["mask_punctuation"] else ()
    begin_of_query = () if compat and generation == "A" and xlmr else masked
    if compat and xlmr:
        assumed.append("passages end in one padding vector: the released code leaves them in, all alike (--compat)")
        if generation == "A":
            assumed.append("queries score the token that begins them: generation A does not mask it (--compat)")
    settings = StudentSettings(
        name=source.stem,
        dim=int(projection.shape[0]),
        query_length=int(read["query_maxlen"]),
        passage_length=int(read["doc_maxlen"]),
        query_prefix=(markers[0], *left),
        passage_prefix=(markers[1], *left),
        score_frame=True,
        query_expansion=Expansion(
            token_id=expansion_id, length=int(read["query_maxlen"]), attended=bool(read["attend_to_mask_tokens"])
        ),
        passage_expansion=pads if compat and xlmr else None,
        query_skip=begin_of_query,
        passage_skip=tuple(sorted({*masked, *punctuation})),
        pad_id=tokenizer.pad_token_id,
        unknown_id=tokenizer.unk_token_id,
    )
    return Reading(model, settings, assumed)


def _stored_settings(loaded: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in ("arguments", "config"):
        stored = loaded.get(key)
        found |= stored if isinstance(stored, dict) else vars(stored) if hasattr(stored, "__dict__") else {}
    if isinstance(loaded.get("model_type"), str):
        found["model_type"] = loaded["model_type"]
    return found


def _without_module(key: str) -> str:
    return key.removeprefix("module.")


def _split(source: Path, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Separate the encoder's weights, under its own names, from the projection (dim, width)."""
    plain = {_without_module(key).removeprefix("model."): tensor for key, tensor in state.items()}
    prefix = "roberta." if any(key.startswith("roberta.") for key in plain) else "bert."
    projection = plain.get("linear.weight")
    backbone = {
        key.removeprefix(prefix): tensor.float()
        for key, tensor in plain.items()
        if key.startswith(prefix) and not _NOT_NEEDED.search(key)
    }
    if projection is None or projection.ndim != 2 or not backbone:
        raise ModelError(f"{source}: lacks linear.weight or the encoder's weights (roberta.*, bert.*)")
    return backbone, projection.float()


def _build(
    source: Path, base: str, backbone: dict[str, Tensor], projection: Tensor
) -> tuple[MultiVectorEncoder, Any]:
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    try:
        encoder: PreTrainedModel = AutoModel.from_config(AutoConfig.from_pretrained(base))
        tokenizer = AutoTokenizer.from_pretrained(base)
    except Exception as problem:  # transformers and its hub client have no common base
        first_line = str(problem).strip().splitlines()[0]
        raise ModelError(
            f"{source}: its encoder {base!r} cannot be opened ({first_line}); give a directory with its config.json "
            "and tokenizer as --base"
        ) from None
    wanted = {key: tensor.shape for key, tensor in encoder.state_dict().items() if not _NOT_NEEDED.search(key)}
    wrong = [key for key, shape in wanted.items() if key not in backbone or backbone[key].shape != shape]
    unknown = [key for key in backbone if key not in wanted]
    if wrong or unknown:
        key = (wrong or unknown)[0]
        raise ModelError(
            f"{source}: its weights do not fit {base!r}: {len(wrong)} are missing or of another shape and "
            f"{len(unknown)} are unknown, such as {key}; give the encoder it was trained from as --base"
        )
    encoder.load_state_dict(backbone, strict=False)
    with tempfile.TemporaryDirectory() as folder:
        encoder.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        transformer = Transformer(folder)
    dim, width = projection.shape
    dense = Dense(
        width,
        dim,
        bias=False,
        activation_function=torch.nn.Identity(),
        init_weight=projection.clone(),
        module_input_name="token_embeddings",
    )
    modules = [transformer, dense, MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    model = MultiVectorEncoder(modules=modules, device="cpu")
    fast_tokenizer(model)
    return model, model.tokenizer
