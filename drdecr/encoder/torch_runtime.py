"""A student run by torch and sentence-transformers: for GPUs, and for students without an `onnx/` folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from drdecr.encoder.batching import encode_tokens
from drdecr.encoder.settings import StudentSettings, fingerprint_student, read_settings
from drdecr.encoder.text_tokens import TextTokenizer
from drdecr.encoder.types import Encoded, EncoderSpec, Kind, Progress
from drdecr.errors import ModelError

if TYPE_CHECKING:
    import torch
    from sentence_transformers import MultiVectorEncoder
    from torch import Tensor

# What sentence-transformers calls the two sides.
TASKS: dict[Kind, str] = {"query": "query", "passage": "document"}

_TRUSTED = ("drdecr.", "sentence_transformers.", "pylate.models.Dense.")


class TorchEncoder:
    """An encoder over a sentence-transformers `MultiVectorEncoder`."""

    def __init__(self, model: MultiVectorEncoder, settings: StudentSettings, fingerprint: str) -> None:
        self.model = model
        self.settings = settings
        # A copy: the model's own keeps its padding, which training and saving rely on.
        self._tokenizer = TextTokenizer(Tokenizer.from_str(fast_tokenizer(model).to_str()), settings)
        self._spec = settings.spec(fingerprint)

    @classmethod
    def load(cls, student: str | Path, *, threads: int | None = None, device: str | None = None) -> Self:
        """Load a student directory. `threads` sets torch's number for the whole process.

        Raises: ModelError where it is no such directory, or torch is not installed.
        """
        settings = read_settings(student)
        model = load_model(student, device=device)
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        return cls(model, settings or derive_settings(model, Path(student).name), fingerprint_student(student))

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def encode(self, texts: Sequence[str], kind: Kind, *, progress: Progress | None = None) -> Encoded:
        """Encode texts in their order. An empty text has no token vectors."""
        import torch

        was_training = self.model.training
        self.model.eval()

        def forward(
            ids: NDArray[np.int64], mask: NDArray[np.int64]
        ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
            device = self.model.device
            tokens, sentences = vectors_of(
                self.model, torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device), kind, self.settings
            )
            return tokens.cpu().numpy(), None if sentences is None else sentences.cpu().numpy()

        try:
            with torch.inference_mode():
                return encode_tokens(
                    self._tokenizer.tokenize(texts, kind),
                    forward,
                    dim=self._spec.dim,
                    sentence_dim=self._spec.sentence_dim,
                    pad_id=self.settings.pad_id,
                    progress=progress,
                )
        finally:
            self.model.train(was_training)


def vectors_of(
    model: torch.nn.Module, ids: Tensor, mask: Tensor, kind: Kind, settings: StudentSettings
) -> tuple[Tensor, Tensor | None]:
    """Run a model over token ids, (batch, tokens) int64.

    Returns float32 token vectors (batch, tokens, dim), L2-normalised, padding included, and sentence vectors
    (batch, sentence_dim), or None for a student without.

    Raises: ModelError where the model gives other widths than the settings promise.
    """
    from torch.nn import functional

    features: dict[str, Any] = model({"input_ids": ids, "attention_mask": mask}, task=TASKS[kind])
    tokens = features["token_embeddings"].float()
    # Fewer dimensions than the model has: its first ones (Matryoshka).
    if tokens.shape[-1] < settings.dim:
        raise ModelError(f"{settings.name}: gives {tokens.shape[-1]} dimensions, its settings promise {settings.dim}")
    tokens = functional.normalize(tokens[..., : settings.dim], dim=-1)
    if not settings.sentence_dim:
        return tokens, None
    sentences = features.get("sentence_embedding")
    if sentences is None or sentences.shape[-1] != settings.sentence_dim:
        raise ModelError(
            f"{settings.name}: its settings promise a sentence vector of {settings.sentence_dim} dimensions, "
            "which it does not give"
        )
    return tokens, functional.normalize(sentences.float(), dim=-1)


def load_model(student: str | Path, *, device: str | None = None) -> MultiVectorEncoder:
    """Open a directory with sentence-transformers, on this machine only. Raises: ModelError."""
    try:
        from sentence_transformers import MultiVectorEncoder
    except ImportError:
        raise ModelError(
            f"{student}: running it needs torch and sentence-transformers: pip install 'drdecr[train]', "
            "or use a student with an onnx/ folder"
        ) from None
    try:
        return MultiVectorEncoder(
            str(student), device=device, local_files_only=True, trust_remote_code=_only_our_code(Path(student))
        )
    except Exception as problem:  # the library wraps nothing: KeyError, OSError, json errors and more
        raise ModelError(
            f"{student}: sentence-transformers cannot load it ({type(problem).__name__}: {problem})"
        ) from None


def _only_our_code(student: Path) -> bool:
    """Tell whether all that the library would have to trust is this package: it asks for classes it does not own."""
    try:
        modules = json.loads((student / "modules.json").read_bytes())
        ours = any(str(module["type"]).startswith("drdecr.") for module in modules)
    except (OSError, ValueError, TypeError, KeyError):
        return False
    brings_code = any(student.rglob("*.py")) or any(
        b"auto_map" in config.read_bytes() for config in student.rglob("*config*.json")
    )
    foreign = any(not str(module["type"]).startswith(_TRUSTED) for module in modules)
    return ours and not brings_code and not foreign


def fast_tokenizer(model: MultiVectorEncoder) -> Tokenizer:
    """Return the `tokenizers` tokenizer of a model. Raises: ModelError for one that has none."""
    tokenizer = model.tokenizer
    tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(tokenizer, Tokenizer):
        raise ModelError(f"its tokenizer, {type(tokenizer).__name__}, is not a fast one; save it as tokenizer.json")
    return tokenizer


def derive_settings(model: MultiVectorEncoder, name: str) -> StudentSettings:
    """Read from a model without `drdecr.json` what that file would say.

    Prompts become prefixes. Raises: ModelError for query expansion, which no runtime here does.
    """
    first = model[0]
    if getattr(first, "query_expansion", None):
        raise ModelError(
            f"{name}: expands queries by mask tokens, which is not supported; switch query_expansion off"
        )
    tokenizer = model.tokenizer
    backend = fast_tokenizer(model)
    longest = int(getattr(first, "max_seq_length", None) or 256)
    passage_length = getattr(first, "document_length", None) or getattr(first, "passage_length", None) or longest
    prompts = model.prompts or {}
    passage_prompt = next((prompts[key] for key in ("document", "passage", "corpus") if prompts.get(key)), "")
    skip: dict[str, tuple[int, ...]] = {"query": (), "document": ()}
    for module in model:
        if (ids := getattr(module, "_skiplist_ids", None)) is not None:
            skip |= {task: tuple(ids.tolist()) for task in module.skiplist_tasks}
    pad_id = getattr(tokenizer, "pad_token_id", None)
    return StudentSettings(
        name=name,
        dim=int(model.get_embedding_dimension()),
        query_length=int(getattr(first, "query_length", None) or longest),
        passage_length=int(passage_length),
        query_prefix=_prefix(backend, prompts.get("query")),
        passage_prefix=_prefix(backend, passage_prompt),
        query_skip=skip["query"],
        passage_skip=skip["document"],
        pad_id=pad_id or 0,
        unknown_id=getattr(tokenizer, "unk_token_id", None),
    )


def _prefix(tokenizer: Tokenizer, prompt: str | None) -> tuple[int, ...]:
    return tuple(tokenizer.encode(prompt, add_special_tokens=False).ids) if prompt else ()
