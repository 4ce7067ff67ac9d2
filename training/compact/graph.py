"""Make an exported graph small: tables as product codes, other weights in 8 bits.

Stored forms of an initializer X, which `stored` reads back: X itself · X.codes and X.codebook · X.values and X.scales
(8 bits, a scale a row or column; ONNX Runtime multiplies them once, when it loads) · X.narrow (whole numbers in fewer
bytes) · X_quantized, X_scale and X_zero_point (ONNX Runtime's own, multiplied in 8 bits).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from training.compact.product_codes import CENTROIDS, ProductCodes, product_codes

# Fewer rows are no vocabulary.
TABLE_ROWS = 1024
# A matrix below this many numbers is not worth a scale.
_SMALLEST = 4096
# Columns that share a byte, by what the table holds; narrow tables spend a byte on each number.
_NARROW = 16
WIDTH_OF_BYTES = 2
WIDTH_OF_FLOATS = 3

_TURNED = "_Transposed"
_LOOKUPS = ("Gather", "GatherND")


def shrink_tables(model: onnx.ModelProto) -> None:
    """Replace each table that rows are looked up in; only the rows that a text needs are ever decoded."""
    tables = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2 and tensor.dims[0] >= TABLE_ROWS
    }
    looked_up = {node.input[0] for node in model.graph.node if node.op_type in _LOOKUPS and node.input[0] in tables}
    elsewhere = {
        name for node in model.graph.node for at, name in enumerate(node.input) if at or node.op_type not in _LOOKUPS
    }
    for name in sorted(looked_up - elsewhere):
        table = tables[name]
        if table.dtype == np.int32:
            _narrow(model.graph, name, table)
        elif table.dtype in (np.float32, np.uint8):
            wanted = 1 if table.shape[1] < _NARROW else WIDTH_OF_BYTES if table.dtype == np.uint8 else WIDTH_OF_FLOATS
            width = next(width for width in range(wanted, 0, -1) if table.shape[1] % width == 0)
            _code(model.graph, name, product_codes(table, width))


def shrink_matrices(model: onnx.ModelProto) -> None:
    """Store every large float matrix that is left in 8 bits; it is multiplied out when the graph is loaded."""
    graph = model.graph
    before: list[NodeProto] = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2 or np.prod(tensor.dims) < _SMALLEST:
            continue
        name = tensor.name
        values, scales = _eight_bits(numpy_helper.to_array(tensor))
        graph.initializer.remove(tensor)
        _add(graph, f"{name}.values", values)
        _add(graph, f"{name}.scales", scales)
        before.append(helper.make_node("Cast", [f"{name}.values"], [f"{name}.whole"], to=TensorProto.FLOAT))
        before.append(helper.make_node("Mul", [f"{name}.whole", f"{name}.scales"], [name]))
    _replace_nodes(graph, [*before, *graph.node])


def rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Give initializers other names."""
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = names.get(name, name)


def stored(initializers: Mapping[str, NDArray[np.generic]], name: str) -> NDArray[np.generic] | None:
    """Return what an initializer held before it was shrunk, as near as its stored form is; None where it is lost."""
    if name in initializers:
        return initializers[name]
    if f"{name}.codes" in initializers:
        return ProductCodes(initializers[f"{name}.codes"].astype(np.uint8), initializers[f"{name}.codebook"]).decode()
    if f"{name}.values" in initializers:
        return _floats(initializers, f"{name}.values") * _floats(initializers, f"{name}.scales")
    if f"{name}_quantized" in initializers:
        whole = _floats(initializers, f"{name}_quantized") - _floats(initializers, f"{name}_zero_point")
        return whole * _floats(initializers, f"{name}_scale")
    if f"{name}.narrow" in initializers:
        return initializers[f"{name}.narrow"]
    # ONNX Runtime's quantiser turns a Gemm into a MatMul.
    turned = f"{name}{_TURNED}"
    if any(one.startswith(turned) for one in initializers) and (matrix := stored(initializers, turned)) is not None:
        return matrix.T
    return None


def initializers_of(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of a graph by their names."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _floats(initializers: Mapping[str, NDArray[np.generic]], name: str) -> NDArray[np.float32]:
    return initializers[name].astype(np.float32)


def _eight_bits(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise with a scale for each row or for each column, whichever is nearer."""
    best: tuple[float, NDArray[np.int8], NDArray[np.float32]] | None = None
    for axis in (0, 1):
        largest = np.abs(matrix).max(axis=axis, keepdims=True)
        scales = (np.where(largest > 0, largest, 1) / 127).astype(np.float32)
        values = np.rint(matrix / scales).astype(np.int8)
        error = float(np.square(values * scales - matrix).sum())
        if best is None or error < best[0]:
            best = (error, values, scales)
    assert best is not None
    return best[1], best[2]


def _narrow(graph: onnx.GraphProto, name: str, table: NDArray[np.generic]) -> None:
    if table.min() < 0 or table.max() >= 1 << 16:
        return
    _drop(graph, name)
    _add(graph, f"{name}.narrow", table.astype(np.uint16))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type in _LOOKUPS and node.input[0] == name:
            output = node.output[0]
            node.input[0] = f"{name}.narrow"
            node.output[0] = f"{output}.narrow"
            nodes.append(helper.make_node("Cast", [f"{output}.narrow"], [output], to=TensorProto.INT32))
    _replace_nodes(graph, nodes)


def _code(graph: onnx.GraphProto, name: str, coded: ProductCodes) -> None:
    _drop(graph, name)
    groups, width = coded.codes.shape[1], coded.codebook.shape[1]
    _add(graph, f"{name}.codes", coded.codes)
    _add(graph, f"{name}.codebook", coded.codebook)
    _add(graph, f"{name}.groups", (np.arange(groups) * CENTROIDS).astype(np.int32))
    _add(graph, f"{name}.columns", np.array([groups * width]))
    book = f"{name}.codebook"
    nodes = []
    if coded.codebook.dtype == np.float16:
        book = f"{name}.centroids"
        nodes.append(helper.make_node("Cast", [f"{name}.codebook"], [book], to=TensorProto.FLOAT))
    for node in graph.node:
        nodes.append(node)
        if node.op_type in _LOOKUPS and node.input[0] == name:
            output = node.output[0]
            node.input[0] = f"{name}.codes"
            node.output[0] = f"{output}.codes"
            nodes += [
                helper.make_node("Cast", [f"{output}.codes"], [f"{output}.whole"], to=TensorProto.INT32),
                helper.make_node("Add", [f"{output}.whole", f"{name}.groups"], [f"{output}.places"]),
                helper.make_node("Gather", [book, f"{output}.places"], [f"{output}.grouped"]),
                helper.make_node("Shape", [f"{output}.codes"], [f"{output}.leading"], end=-1),
                helper.make_node("Concat", [f"{output}.leading", f"{name}.columns"], [f"{output}.shape"], axis=0),
                helper.make_node("Reshape", [f"{output}.grouped", f"{output}.shape"], [output]),
            ]
    _replace_nodes(graph, nodes)


def _add(graph: onnx.GraphProto, name: str, array: NDArray[np.generic]) -> None:
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))


def _drop(graph: onnx.GraphProto, name: str) -> None:
    graph.initializer.remove(next(tensor for tensor in graph.initializer if tensor.name == name))


def _replace_nodes(graph: onnx.GraphProto, nodes: Iterable[NodeProto]) -> None:
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)
