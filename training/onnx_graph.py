"""A student's modules as an ONNX graph, and the graph's int8 twin."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from drdecr.encoder.onnx_runtime import INPUTS, ROWS_INPUT, SENTENCE_OUTPUT, output_names
from drdecr.encoder.settings import Precision, StudentSettings
from drdecr.encoder.torch_runtime import TorchEncoder, reads_sentences_alone, vectors_of
from drdecr.errors import ModelError

FILES: dict[Precision, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
_OPSET = 20
# What one file of protocol buffers holds, with room for the nodes.
_MOST_BYTES = 2**31 - 2**26
# Where the classes live that the exporter names as a node's origin.
_TRANSFORMERS = "transformers.models."
_QUANTIZED = ("MatMul", "Gemm", "Gather")


def export_graph(reference: TorchEncoder, file: Path) -> None:
    """Write a student's modules as one fp32 graph. Raises: ModelError where torch cannot export one."""
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
    weighs = sum(weight.numel() * weight.element_size() for weight in graph.state_dict().values())
    if weighs > _MOST_BYTES:
        raise ModelError(
            f"{reference.spec.name}: its weights take {weighs / 1e9:.1f} GB and an ONNX file holds 2 at most; torch "
            "serves it without an export, on a GPU in bfloat16"
        )
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
    # Large weights lie in a file of their own until now.
    file.with_name(f"{file.name}.data").unlink(missing_ok=True)


def quantize(source: Path, target: Path, *, narrowing_exact: bool, operators: Sequence[str] = _QUANTIZED) -> None:
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
