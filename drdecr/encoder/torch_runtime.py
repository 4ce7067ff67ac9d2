"""A student run by torch and sentence-transformers: for GPUs, and for students without an `onnx/` folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from drdecr.encoder.batching import encode_sentences, encode_tokens
from drdecr.encoder.piece_tokenizer import read_tokenizer
from drdecr.encoder.query_weights import QueryWeights
from drdecr.encoder.settings import (
    MANIFEST_FILE,
    ONNX_FOLDER,
    Expansion,
    StudentSettings,
    fingerprint_student,
    read_settings,
)
from drdecr.encoder.text_tokens import TextTokenizer, TextTokens
from drdecr.encoder.types import Encoded, EncoderSpec, Kind, Progress
from drdecr.errors import ModelError

if TYPE_CHECKING:
    import torch
    from sentence_transformers import MultiVectorEncoder
    from torch import Tensor

Precision = Literal["fp32", "bf16"]

# What sentence-transformers calls the two sides.
TASKS: dict[Kind, str] = {"query": "query", "passage": "document"}

_TRUSTED = ("drdecr.", "sentence_transformers.", "pylate.models.Dense.")


class TorchEncoder:
    """An encoder over a sentence-transformers `MultiVectorEncoder`."""

    def __init__(
        self, model: MultiVectorEncoder, settings: StudentSettings, fingerprint: str, precision: Precision = "fp32"
    ) -> None:
        self.model = model
        self.precision = precision
        self.settings = settings
        self._tokenizer = TextTokenizer(read_tokenizer(fast_tokenizer(model).to_str()), settings)
        self._spec = settings.spec(fingerprint)

    @classmethod
    def load(
        cls,
        student: str | Path,
        *,
        threads: int | None = None,
        device: str | None = None,
        precision: Precision = "fp32",
        trust_remote_code: bool = False,
    ) -> Self:
        """Load a student directory. `threads` sets torch's number for the whole process.

        In bf16 the products are taken in that type, and the vectors still come as float32. `trust_remote_code` runs
        model code that the directory brings.

        Raises: ModelError where it is no such directory, holds only what ONNX runs, or torch is not installed.
        """
        place = Path(student)
        names = ("modules.json", "config.json")
        if (place / ONNX_FOLDER / MANIFEST_FILE).is_file() and not any((place / name).is_file() for name in names):
            raise ModelError(
                f"{student}: holds no weights that torch runs, only {ONNX_FOLDER}/, which serves it as it is; "
                "a recipe may start from it (`student`)"
            )
        settings = read_settings(student)
        # Loaded for training, it would encode with dropout wherever another thread ends its own encoding.
        model = load_model(student, device=device, trust_remote_code=trust_remote_code).eval()
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        return cls(
            model, settings or derive_settings(model, Path(student).name), fingerprint_student(student), precision
        )

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def encode(self, texts: Sequence[str], kind: Kind, *, progress: Progress | None = None) -> Encoded:
        """Encode texts in their order. An empty text has no token vectors."""
        return self.encode_tokens(self.tokenize(texts, kind), progress=progress)

    def tokenize(self, texts: Sequence[str], kind: Kind) -> list[TextTokens]:
        """Do the first half of `encode`, to be timed or batched apart."""
        return self._tokenizer.tokenize(texts, kind)

    def encode_tokens(self, tokens: Sequence[TextTokens], *, progress: Progress | None = None) -> Encoded:
        """Do the second half of `encode`."""
        import torch

        def forward(
            ids: NDArray[np.int64], mask: NDArray[np.int64]
        ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None]:
            device = self.model.device
            tokens, sentences, weights = vectors_of(
                self.model, torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device), self.settings
            )
            of_text, of_tokens = (None if one is None else one.cpu().numpy() for one in (sentences, weights))
            return tokens.cpu().numpy(), of_text, of_tokens

        with self._inference():
            return encode_tokens(tokens, forward, self.settings, progress=progress)

    def encode_sentences(self, texts: Sequence[str], *, progress: Progress | None = None) -> NDArray[np.float32]:
        """Return sentence vectors alone, (texts, sentence_dim): at a quarter of the cost where the model can."""
        import torch

        device = self.model.device
        rows = torch.empty(0, dtype=torch.long, device=device) if reads_sentences_alone(self.model) else None

        def forward(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32] | None:
            given = torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)
            found = vectors_of(self.model, *given, self.settings, rows)[1]
            return None if found is None else found.cpu().numpy()

        with self._inference():
            return encode_sentences(self.tokenize(texts, "passage"), forward, self.settings, progress=progress)

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """Run the model as it serves, in its precision; a model in training goes on training after that.

        Threads may encode side by side with a model that is not in training.
        """
        import torch

        was_training = self.model.training
        if was_training:
            self.model.eval()
        # In 32 bits the caller's context decides: `autocast(enabled=False)` would end mixed precision here.
        narrow = torch.autocast(self.model.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        try:
            with torch.inference_mode(), narrow:
                yield
        finally:
            if was_training:
                self.model.train()


def fastest_precision() -> Precision:
    """Return bf16 where a GPU multiplies it, else fp32."""
    try:
        import torch
    except ImportError:
        return "fp32"
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"


def vectors_of(
    model: torch.nn.Module, ids: Tensor, mask: Tensor, settings: StudentSettings, rows: Tensor | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Run a model over token ids, (batch, tokens) int64; queries and passages take the same way through it.

    Returns float32 token vectors (batch, tokens, dim), L2-normalised, padding included; sentence vectors
    (batch, sentence_dim), or None for a student without; and how much each token counts in a query (batch, tokens),
    or None for a student without such weights. Of a model that `reads_sentences_alone`, `rows` (some,) int64 may say
    which texts get token vectors and weights.

    Raises: ModelError where the model gives other widths than the settings promise.
    """
    from torch.nn import functional

    given = {"input_ids": ids, "attention_mask": mask} | ({} if rows is None else {"token_rows": rows})
    features: dict[str, Any] = model(given, task=TASKS["passage"])
    tokens = features["token_embeddings"].float()
    # Fewer dimensions than the model has: its first ones (Matryoshka).
    if tokens.shape[-1] < settings.dim:
        raise ModelError(f"{settings.name}: gives {tokens.shape[-1]} dimensions, its settings promise {settings.dim}")
    tokens = functional.normalize(tokens[..., : settings.dim], dim=-1)
    weights = features["token_weights"].float() if settings.query_weights and "token_weights" in features else None
    if settings.query_weights and weights is None:
        raise ModelError(f"{settings.name}: its settings promise query weights, which it does not give")
    if not settings.sentence_dim:
        return tokens, None, weights
    sentences = features.get("sentence_embedding")
    if sentences is None or sentences.shape[-1] != settings.sentence_dim:
        raise ModelError(
            f"{settings.name}: its settings promise a sentence vector of {settings.sentence_dim} dimensions, "
            "which it does not give"
        )
    return tokens, functional.normalize(sentences.float(), dim=-1), weights


def reads_sentences_alone(model: torch.nn.Module) -> bool:
    """Tell whether a model gives sentence vectors without computing token vectors for them."""
    return bool(getattr(next(iter(model.children())), "reads_sentences_alone", False))


def load_model(
    student: str | Path, *, device: str | None = None, trust_remote_code: bool = False
) -> MultiVectorEncoder:
    """Open a directory with sentence-transformers, on this machine only.

    Code that the directory brings runs only with `trust_remote_code`. Raises: ModelError.
    """
    try:
        from sentence_transformers import MultiVectorEncoder
        from sentence_transformers.base.modules import Router
    except ImportError:
        raise ModelError(
            f"{student}: running it needs torch and sentence-transformers: pip install 'drdecr[train]', "
            "or use a student with an onnx/ folder"
        ) from None
    try:
        model = MultiVectorEncoder(
            str(student),
            device=device,
            local_files_only=True,
            trust_remote_code=trust_remote_code or _only_our_code(Path(student)),
        )
    except Exception as problem:  # the library wraps nothing: KeyError, OSError, json errors and more
        raise ModelError(
            f"{student}: sentence-transformers cannot load it ({type(problem).__name__}: {problem})"
        ) from None
    if any(isinstance(module, Router) for module in model):
        raise ModelError(f"{student}: has other modules for queries than for passages; one encoder must read both")
    return model


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

    Prompts become prefixes; what sentence-transformers scores is scored. Raises: ModelError for prompts that are not
    tokens before the text, and for tokens that it scores by an allowlist.
    """
    first = model[0]
    tokenizer = model.tokenizer
    longest = int(getattr(first, "max_seq_length", None) or 256)
    passage_length = getattr(first, "document_length", None) or getattr(first, "passage_length", None) or longest
    query_length = int(getattr(first, "query_length", None) or longest)
    expansion = _expansion(model)
    if expansion is not None:
        fixed = first.query_expansion["strategy"] == "fixed"
        query_length = expansion.length if fixed else max(query_length, expansion.length)
    prompts = model.prompts or {}
    passage_prompt = next((prompts[key] for key in ("document", "passage", "corpus") if prompts.get(key)), "")
    skip: dict[str, tuple[int, ...]] = {"query": (), "document": ()}
    for module in model:
        if (ids := getattr(module, "_skiplist_ids", None)) is not None:
            skip |= {task: tuple(ids.tolist()) for task in module.skiplist_tasks}
        if getattr(module, "keep_only_token_ids", None):
            raise ModelError(f"{name}: scores only tokens of an allowlist (images), which no runtime here does")
    pad_id = getattr(tokenizer, "pad_token_id", None)
    backend = Tokenizer.from_str(fast_tokenizer(model).to_str())
    backend.no_padding()
    backend.no_truncation()
    return StudentSettings(
        name=name,
        dim=int(model.get_embedding_dimension()),
        query_length=query_length,
        passage_length=int(passage_length),
        query_prefix=_prefix(backend, prompts.get("query"), name),
        passage_prefix=_prefix(backend, passage_prompt, name),
        score_frame=True,
        query_expansion=expansion,
        query_skip=skip["query"],
        passage_skip=skip["document"],
        query_weights=any(isinstance(module, QueryWeights) for module in model),
        pad_id=pad_id or 0,
        unknown_id=getattr(tokenizer, "unk_token_id", None),
    )


def _expansion(model: MultiVectorEncoder) -> Expansion | None:
    stated = getattr(model[0], "query_expansion", None)
    if not stated:
        return None
    tokenizer = model.tokenizer
    if stated.get("token") is not None:
        token_id = tokenizer.convert_tokens_to_ids(stated["token"])
    else:
        token_id = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.eos_token_id
    return Expansion(token_id=token_id, length=stated["length"], attended=bool(stated.get("attend")))


def _prefix(tokenizer: Tokenizer, prompt: str | None, name: str) -> tuple[int, ...]:
    """Return a prompt's ids. Raises: ModelError where the text after it is split otherwise than alone."""
    if not prompt:
        return ()
    prefix = tokenizer.encode(prompt, add_special_tokens=False).ids
    for text in ("which one", "東京 の", "كيف ذلك"):
        alone = tokenizer.encode(text, add_special_tokens=False).ids
        if tokenizer.encode(prompt + text, add_special_tokens=False).ids != prefix + alone:
            raise ModelError(
                f"{name}: its prompt {prompt!r} runs together with the text after it; only a prompt whose pieces "
                "stay apart, such as a marker token, is supported"
            )
    return tuple(prefix)
