"""A student served by ONNX Runtime, without torch."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from drdecr.encoder.batching import BATCH_TOKENS, encode_sentences, encode_tokens
from drdecr.encoder.piece_tokenizer import PieceTokenizer, read_tokenizer
from drdecr.encoder.settings import (
    ONNX_FOLDER,
    TOKENIZER_FILE,
    OnnxManifest,
    Precision,
    StudentSettings,
    read_manifest,
    sha256_of,
)
from drdecr.encoder.text_tokens import TextTokenizer, TextTokens
from drdecr.encoder.types import Encoded, EncoderSpec, Kind, Progress
from drdecr.errors import ModelError
from drdecr.heap import trim_heap

INPUTS = ("input_ids", "attention_mask")
ROWS_INPUT = "token_rows"
"""In a graph whose sentence vectors need no token vectors: the texts of a batch that get some, (some,) int64."""
TOKEN_OUTPUT = "token_vectors"
SENTENCE_OUTPUT = "sentence_vectors"
WEIGHT_OUTPUT = "token_weights"

# A batch for one thread. Eight times as many took twice the time and ten times the memory: their intermediate results
# fit no cache (benchmarks/encode_passages.py).
TOKENS_A_THREAD = 512
SMALL_BATCH_TOKENS = 128
KEEP_ROOM_S = 10.0


class OnnxEncoder:
    """An encoder over a student's `onnx/` folder. Threads may share one.

    `batch_tokens` is how many tokens it encodes at a time, padding included.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        tokenizer: PieceTokenizer,
        manifest: OnnxManifest,
        precision: Precision,
    ) -> None:
        self._session = session
        self._tokenizer = TextTokenizer(tokenizer, manifest)
        self._manifest = manifest
        self._spec = manifest.spec(manifest.fingerprint)
        self._outputs = output_names(manifest)
        self._takes_rows = ROWS_INPUT in (entry.name for entry in session.get_inputs())
        threads = session.get_session_options().intra_op_num_threads
        self.batch_tokens = min(TOKENS_A_THREAD * threads, BATCH_TOKENS)
        self._room = _Room()
        self.precision = precision

    @classmethod
    def load(cls, student: str | Path, *, threads: int | None = None, precision: Precision | None = None) -> Self:
        """Load the file that the manifest serves, or the one of another precision.

        `threads` run one batch; all processors of this process by default.

        Raises: ModelError where a file is missing, unreadable, changed since its export, or of other shapes.
        """
        return cls.from_folder(
            Path(student) / ONNX_FOLDER, read_manifest(student), threads=threads, precision=precision
        )

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        manifest: OnnxManifest,
        *,
        threads: int | None = None,
        precision: Precision | None = None,
    ) -> Self:
        """Load from an `onnx/` folder whose manifest is already read, as `load` does. Raises: ModelError."""
        chosen = precision or manifest.serves
        if chosen not in manifest.files:
            raise ModelError(f"{folder}: has no {chosen} file; export the student again with it")
        graph = _checked(folder / manifest.files[chosen], manifest)
        tokenizer_file = _checked(folder / TOKENIZER_FILE, manifest)
        try:
            tokenizer = read_tokenizer(tokenizer_file.read_text(encoding="utf-8"))
        except Exception as problem:  # the library raises nothing narrower
            raise ModelError(f"{tokenizer_file}: no tokenizer ({problem})") from None
        return cls(_session(graph, manifest, threads), tokenizer, manifest, chosen)

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
        return encode_tokens(
            tokens,
            self._forward,
            self._manifest,
            batch_tokens=self.batch_tokens,
            progress=progress,
        )

    def encode_sentences(self, texts: Sequence[str], *, progress: Progress | None = None) -> NDArray[np.float32]:
        """Return sentence vectors alone, (texts, sentence_dim): at a quarter of the cost where the graph can."""

        def forward(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32] | None:
            return self._forward(ids, mask, with_tokens=False)[1]

        tokens = self.tokenize(texts, "passage")
        return encode_sentences(tokens, forward, self._manifest, batch_tokens=self.batch_tokens, progress=progress)

    def _forward(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, with_tokens: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None]:
        inputs = dict(zip(INPUTS, (ids, mask), strict=True))
        if self._takes_rows:
            inputs[ROWS_INPUT] = np.arange(len(ids) if with_tokens else 0, dtype=np.int64)
        options = self._room.options(ids.size)
        answers = self._session.run(self._outputs, inputs, options)
        if options is not None:
            trim_heap()
        outputs = dict(zip(self._outputs, answers, strict=True))
        return outputs[TOKEN_OUTPUT], outputs.get(SENTENCE_OUTPUT), outputs.get(WEIGHT_OUTPUT)


class _Room:
    """Decides when ONNX Runtime gives back the memory that batches of passages took, which it would keep.

    Giving it back after each of them costs up to a fifth of their time. So the first small batch after a pause does.
    """

    def __init__(self) -> None:
        self._used_at: float | None = None
        self._giving = onnxruntime.RunOptions()
        self._giving.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def options(self, tokens: int) -> onnxruntime.RunOptions | None:
        """Return how to run a batch of so many tokens."""
        if tokens > SMALL_BATCH_TOKENS:
            self._used_at = time.monotonic()
            return None
        if self._used_at is None or time.monotonic() - self._used_at < KEEP_ROOM_S:
            return None
        self._used_at = None
        return self._giving


def output_names(settings: StudentSettings) -> list[str]:
    """Return what a student's graph gives, in the order of its outputs."""
    names = [TOKEN_OUTPUT]
    if settings.sentence_dim:
        names.append(SENTENCE_OUTPUT)
    if settings.query_weights:
        names.append(WEIGHT_OUTPUT)
    return names


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _checked(path: Path, manifest: OnnxManifest) -> Path:
    try:
        actual = sha256_of(path)
    except OSError as problem:
        raise ModelError(f"{path}: cannot be read ({problem.strerror}); export the student again") from None
    if actual != manifest.sha256[path.name]:
        raise ModelError(f"{path}: its SHA-256 differs from the one in encoder.json; export the student again")
    return path


def _session(graph: Path, manifest: OnnxManifest, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or processors()
    options.inter_op_num_threads = 1
    # Idle threads that spin take the processor from search, which runs beside the encoder.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # the library has one class of its own for each status, and no common base
        raise ModelError(f"{graph}: ONNX Runtime cannot load it ({problem})") from None
    given = {output.name: output.shape[-1] for output in session.get_outputs()}
    # The last axis of the weights is that of the tokens, which has no fixed size.
    widths = {name: width for name, width in given.items() if name != WEIGHT_OUTPUT}
    expected = {TOKEN_OUTPUT: manifest.dim}
    if manifest.sentence_dim:
        expected[SENTENCE_OUTPUT] = manifest.sentence_dim
    inputs = sorted(entry.name for entry in session.get_inputs())
    lacking = set(output_names(manifest)) - given.keys()
    if (
        not set(INPUTS) <= set(inputs) <= {*INPUTS, ROWS_INPUT}
        or lacking
        or any(widths.get(name) != width for name, width in expected.items())
    ):
        raise ModelError(
            f"{graph}: takes {', '.join(inputs)} and gives {given}, but encoder.json promises "
            f"{', '.join(output_names(manifest))} of {expected}; "
            "export the student again"
        )
    return session
