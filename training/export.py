"""A student's modules as one ONNX graph, with its int8 twin, served only where it ranks as well."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from drdecr.encoder.onnx_runtime import INPUTS, ROWS_INPUT, SENTENCE_OUTPUT, OnnxEncoder, output_names
from drdecr.encoder.settings import (
    MANIFEST_FILE,
    ONNX_FOLDER,
    TOKENIZER_FILE,
    OnnxManifest,
    Precision,
    Quality,
    StudentSettings,
    sha256_of,
)
from drdecr.encoder.torch_runtime import TorchEncoder, fast_tokenizer, reads_sentences_alone, vectors_of
from drdecr.encoder.types import Encoded, Encoder, Kind
from drdecr.errors import ModelError
from training.ranking_quality import JudgedTexts, ndcg_at_10

FILES: dict[Precision, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
LARGEST_NDCG_LOSS = 0.005
_LARGEST_DIFFERENCE = 1e-4
_OPSET = 20
# Where the classes live that the exporter names as a node's origin.
_TRANSFORMERS = "transformers.models."
_QUANTIZED = ("MatMul", "Gemm", "Gather")

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


def export_onnx(
    student: str | Path,
    *,
    int8: bool = True,
    judged: JudgedTexts | None = None,
    threads: int | None = None,
    trust_remote_code: bool = False,
) -> OnnxManifest:
    """Write a student's `onnx/` folder, replacing an older one as a whole, and return its manifest.

    The int8 file serves if its nDCG@10 over the judged texts is at most 0.005 below that of fp32; without judged
    texts fp32 serves. Both figures are stored in the manifest.

    `trust_remote_code` runs model code that the student brings; serving its `onnx/` folder runs none.

    Raises: ModelError for a student that cannot be loaded or exported, or whose graph gives other vectors.
    """
    path = Path(student)
    reference = TorchEncoder.load(path, threads=threads, device="cpu", trust_remote_code=trust_remote_code)
    folder = Path(tempfile.mkdtemp(prefix=".onnx-", dir=path))
    try:
        manifest = _write(folder, reference, int8=int8, judged=judged, threads=threads)
        folder.chmod(0o755)
        _replace(folder, path / ONNX_FOLDER)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


def _write(
    folder: Path, reference: TorchEncoder, *, int8: bool, judged: JudgedTexts | None, threads: int | None
) -> OnnxManifest:
    graph, tokenizer_file = folder / FILES["fp32"], folder / TOKENIZER_FILE
    _export_graph(reference, graph)
    fast_tokenizer(reference.model).save(str(tokenizer_file), pretty=False)
    manifest = OnnxManifest(
        **reference.settings.model_dump(),
        fingerprint=reference.spec.fingerprint,
        files={"fp32": graph.name},
        serves="fp32",
        sha256={file.name: sha256_of(file) for file in (graph, tokenizer_file)},
    )
    exact = _measure_exact(folder, manifest, reference, judged, threads)
    manifest = manifest.model_copy(update={"quality": {"fp32": exact}})
    if int8:
        # The faster way first; the other where its ranking fails.
        for narrowing_exact in (False, True):
            _quantize(folder / FILES["fp32"], folder / FILES["int8"], narrowing_exact=narrowing_exact)
            manifest = _with_file(manifest, folder, "int8")
            quantized = _measure(folder, manifest, "int8", reference, judged, threads)
            passes = _passes(exact, quantized)
            if passes or judged is None:
                break
        quality = {**manifest.quality, "int8": quantized}
        manifest = manifest.model_copy(update={"quality": quality, "serves": "int8" if passes else "fp32"})
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def _with_file(manifest: OnnxManifest, folder: Path, precision: Precision) -> OnnxManifest:
    name = FILES[precision]
    files = {**manifest.files, precision: name}
    return manifest.model_copy(update={"files": files, "sha256": {**manifest.sha256, name: sha256_of(folder / name)}})


def _passes(exact: Quality, quantized: Quality) -> bool:
    if exact.ndcg_at_10 is None or quantized.ndcg_at_10 is None:
        return False
    return quantized.ndcg_at_10 >= exact.ndcg_at_10 - LARGEST_NDCG_LOSS


class _Graph(nn.Module):
    """From token ids to all that a student gives, as the serving runtime calls it."""

    def __init__(self, model: nn.Module, settings: StudentSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_rows: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        given = vectors_of(self.model, input_ids, attention_mask, self.settings, token_rows)
        return tuple(output for output in given if output is not None)


def _export_graph(reference: TorchEncoder, file: Path) -> None:
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    ids = torch.full((2, 7), reference.settings.pad_id)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    inputs = dict(zip(INPUTS, (ids, mask), strict=True))
    shapes = {name: {0: batch, 1: tokens} for name in INPUTS}
    if reference.settings.sentence_dim and reads_sentences_alone(reference.model):
        inputs[ROWS_INPUT] = torch.tensor([0, 1, 0])
        shapes[ROWS_INPUT] = {0: torch.export.Dim("rows")}
    graph = _Graph(reference.model, reference.settings).eval()
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                graph,
                tuple(inputs.values()),
                str(file),
                input_names=list(inputs),
                output_names=output_names(reference.settings),
                dynamic_shapes=shapes,
                opset_version=_OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except ModelError:
        raise
    except Exception as problem:  # the exporter wraps whatever a module raises
        first_line = str(problem).strip().splitlines()[0]
        raise ModelError(f"{reference.spec.name}: torch cannot export it to ONNX ({first_line})") from problem
    # The exporter's own notes on inner shapes contradict ONNX's inference, which quantisation runs.
    model = onnx.load(file)
    del model.graph.value_info[:]
    onnx.save(model, file)


def _quantize(source: Path, target: Path, *, narrowing_exact: bool, operators: Sequence[str] = _QUANTIZED) -> None:
    """Write the int8 twin; `narrowing_exact` leaves alone the layers that narrow, whose wide inputs hold outliers."""
    graph = onnx.load(source).graph
    exact = _sentence_path(graph)
    if narrowing_exact:
        narrowing = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2 and _narrows(tensor)}
        exact |= {node.name for node in graph.node if node.op_type == "MatMul" and narrowing & set(node.input)}
    with _quiet():
        quantize_dynamic(
            source,
            target,
            per_channel=True,
            # 7 bits: with 8, processors without VNNI saturate when they add two products.
            reduce_range=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(operators),
            # The quantiser rewrites a Gemm as a MatMul of this other name before it looks at the list.
            nodes_to_exclude=sorted(exact | {f"{name}_MatMul" for name in exact}),
        )


def _narrows(weight: onnx.TensorProto) -> bool:
    return bool(weight.dims[0] > weight.dims[1])


def _sentence_path(graph: onnx.GraphProto) -> set[str]:
    """Name the nodes that the sentence vector comes from, unless they are most of the student.

    The one sentence vector weighs as much as all token vectors, whose errors average out: in int8 it cost twice what
    they did, .0075 against .0036 of nDCG@10 (the untrained embedded student, 300 questions over 978 passages). The
    layers of a transformer are left out: they are what int8 is for, and the sentence vector reads their mean.
    """
    producers = {output: node for node in graph.node for output in node.output}
    waiting, names = [SENTENCE_OUTPUT], set()
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.name not in names and not _in_transformer(node):
            names.add(node.name)
            waiting.extend(node.input)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    of_sentence = {True: 0, False: 0}
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            of_sentence[node.name in names] += sum(sizes.get(name, 0) for name in node.input)
    return set() if of_sentence[True] > of_sentence[False] else names


def _in_transformer(node: onnx.NodeProto) -> bool:
    return any(
        entry.key.endswith("class_hierarchy") and _TRANSFORMERS in entry.value for entry in node.metadata_props
    )


def _measure(
    folder: Path,
    manifest: OnnxManifest,
    precision: Precision,
    reference: Encoder,
    judged: JudgedTexts | None,
    threads: int | None,
) -> Quality:
    encoder = OnnxEncoder.from_folder(folder, manifest, threads=threads, precision=precision)
    kinds: tuple[Kind, ...] = ("query", "passage")
    difference = max(_difference(encoder.encode(_SAMPLES, kind), reference.encode(_SAMPLES, kind)) for kind in kinds)
    if manifest.sentence_dim:
        alone = encoder.encode_sentences(_SAMPLES) - reference.encode_sentences(_SAMPLES)
        difference = max(difference, float(np.abs(alone).max()))
    if judged is None:
        return Quality(largest_difference=difference)
    return Quality(largest_difference=difference, ndcg_at_10=ndcg_at_10(encoder, judged), queries=len(judged.queries))


def _measure_exact(
    folder: Path, manifest: OnnxManifest, reference: TorchEncoder, judged: JudgedTexts | None, threads: int | None
) -> Quality:
    exact = _measure(folder, manifest, "fp32", reference, judged, threads)
    if exact.largest_difference > _LARGEST_DIFFERENCE:
        raise ModelError(
            f"{reference.spec.name}: the ONNX graph's vectors differ from torch's by "
            f"{exact.largest_difference:.2g}; the student uses something that does not export"
        )
    return exact


def _difference(left: Encoded, right: Encoded) -> float:
    largest = float(np.abs(left.vectors - right.vectors).max(initial=0.0))
    if left.sentences is not None and right.sentences is not None:
        largest = max(largest, float(np.abs(left.sentences - right.sentences).max(initial=0.0)))
    return largest


def _replace(new: Path, target: Path) -> None:
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=".onnx-old-", dir=target.parent))
        target.rename(old / ONNX_FOLDER)
        new.rename(target)
        shutil.rmtree(old)
    else:
        new.rename(target)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence libraries that warn about what they themselves do."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
