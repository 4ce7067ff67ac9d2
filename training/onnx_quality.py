"""How near an exported graph is to its student: its vectors, and its ranking where there are judged texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from drdecr.encoder.onnx_runtime import OnnxEncoder
from drdecr.encoder.settings import OnnxManifest, Precision, Quality
from drdecr.encoder.torch_runtime import TorchEncoder
from drdecr.encoder.types import Encoded, Encoder, Kind
from drdecr.errors import ModelError
from training.ranking_quality import JudgedTexts, ndcg_at_10

LARGEST_NDCG_LOSS = 0.005
_LARGEST_DIFFERENCE = 1e-4
# Short and long, several scripts, one that no vocabulary holds: what parity with torch is checked on.
_SAMPLES = (
    "a",
    "Which package converts images between formats?",
    "كيف أثبت خط الإنترنت؟",
    "東京の天気はどうですか。",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ",
    "Как настроить принтер в сети?",
    "ᚠᚢᚦᚨᚱᚲ 🙂",
    "One sentence of many words, said again and again. " * 40,
)


def measure(
    folder: Path,
    manifest: OnnxManifest,
    precision: Precision,
    reference: Encoder,
    judged: JudgedTexts | None,
    threads: int | None,
) -> Quality:
    """Measure a folder's graph of some precision against its student, and how well it ranks the judged texts."""
    encoder = OnnxEncoder.from_folder(folder, manifest, threads=threads, precision=precision)
    kinds: tuple[Kind, ...] = ("query", "passage")
    found = [_difference(encoder.encode(_SAMPLES, kind), reference.encode(_SAMPLES, kind)) for kind in kinds]
    if manifest.sentence_dim:
        alone = encoder.encode_sentences(_SAMPLES) - reference.encode_sentences(_SAMPLES)
        found.append(float(np.abs(alone).max()))
    difference = _largest(found)
    if judged is None:
        return Quality(largest_difference=difference)
    return Quality(largest_difference=difference, ndcg_at_10=ndcg_at_10(encoder, judged), queries=len(judged.queries))


def measure_exact(
    folder: Path, manifest: OnnxManifest, reference: TorchEncoder, judged: JudgedTexts | None, threads: int | None
) -> Quality:
    """Measure the fp32 graph. Raises: ModelError when its vectors are not the student's."""
    exact = measure(folder, manifest, "fp32", reference, judged, threads)
    # Of a student without numbers, as after a diverged training, nothing is small.
    if not exact.largest_difference <= _LARGEST_DIFFERENCE:
        raise ModelError(
            f"{reference.spec.name}: the ONNX graph's vectors differ from torch's by "
            f"{exact.largest_difference:.2g}; the student uses something that does not export"
        )
    return exact


def _difference(left: Encoded, right: Encoded) -> float:
    largest = float(np.abs(left.vectors - right.vectors).max(initial=0.0))
    if left.sentences is not None and right.sentences is not None:
        largest = _largest([largest, float(np.abs(left.sentences - right.sentences).max(initial=0.0))])
    return largest


def _largest(values: Sequence[float]) -> float:
    """Return the largest value, or NaN where there is one; `max` goes by their order then."""
    return float(np.max(values))


def ranks_as_well(exact: Quality, quantized: Quality) -> bool:
    """Tell whether the smaller graph loses at most LARGEST_NDCG_LOSS; without judged texts nobody knows."""
    if exact.ndcg_at_10 is None or quantized.ndcg_at_10 is None:
        return False
    return quantized.ndcg_at_10 >= exact.ndcg_at_10 - LARGEST_NDCG_LOSS
