"""Which initializer of a graph holds which weight of a student, and the student made again from that."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import load_file

from drdecr.encoder.settings import ONNX_FOLDER, TOKENIZER_FILE, read_manifest, sha256_of
from drdecr.errors import ModelError
from training.compact.graph import initializers_of, stored

TORCH_FOLDER = "torch"
WEIGHTS_FILE = "weights.json"
_LEFT_OUT = ("README.md", TOKENIZER_FILE)
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".ckpt")


class Held(TypedDict):
    """Where a weight is: in this initializer, as it is or transposed, and of which dtype and shape it was.

    No initializer: it is zero, and the graph does without it.
    """

    initializer: str | None
    transposed: bool
    dtype: str
    shape: list[int]


class Weights:
    """The weights of a student: by file and name, those that initializers hold, and the arrays of the others."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Held]] = {}
        self.others: dict[str, dict[str, NDArray[np.generic]]] = {}


def is_compact(place: Path) -> bool:
    """Tell whether a directory holds a student in its compact form only."""
    return (place / TORCH_FOLDER / WEIGHTS_FILE).is_file() and not (place / "modules.json").exists()


def match_weights(student: Path, initializers: dict[str, NDArray[np.generic]]) -> tuple[Weights, dict[str, str]]:
    """Find each weight of a student's files among the initializers by content: equal, or equal when transposed.

    Returns the weights, under the initializers' new names, and those names: old -> new, the weight's own.
    Raises: ModelError for weights that are not safetensors.
    """
    by_content = {_content(array): name for name, array in reversed(initializers.items())}
    weights, names = Weights(), dict[str, str]()
    for path in _files(student):
        if path.suffix in _OTHER_WEIGHTS:
            raise ModelError(f"{path}: weights of this format are not read; save the student with safetensors")
        if path.suffix != ".safetensors":
            continue
        file = path.relative_to(student).as_posix()
        prefix = "" if path.parent == student else path.parent.relative_to(student).as_posix().replace("/", ".") + "."
        held, others = weights.held.setdefault(file, {}), weights.others.setdefault(file, {})
        for key, tensor in sorted(load_file(path).items()):
            array = (tensor.float() if tensor.is_floating_point() else tensor).contiguous().numpy()
            found = by_content.get(_content(array))
            transposed = found is None and array.ndim == 2
            if transposed:
                found = by_content.get(_content(np.ascontiguousarray(array.T)))
            shape = list(array.shape)
            if found is None:
                if array.any():
                    others[key] = array
                else:
                    held[key] = Held(initializer=None, transposed=False, dtype=str(array.dtype), shape=shape)
                continue
            # Equal weights share an initializer, which keeps the first one's name.
            new = names.setdefault(found, prefix + key)
            held[key] = Held(initializer=new, transposed=transposed, dtype=str(array.dtype), shape=shape)
    taken = set(names.values())
    for name in initializers:
        if name in taken and name not in names:
            names[name] = f"{name}.in_graph"
    return weights, names


def keep_small_files(student: Path, folder: Path) -> None:
    """Copy what a student holds beside its weights and its tokenizer."""
    for path in _files(student):
        if path.suffix != ".safetensors" and path.name not in _LEFT_OUT:
            target = folder / path.relative_to(student)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def write_weights(weights: Weights, folder: Path) -> None:
    """Write `weights.json` and, as safetensors, the weights that no initializer holds."""
    for file, others in weights.others.items():
        if others:
            save_file(others, folder / file)
    (folder / WEIGHTS_FILE).write_text(json.dumps(weights.held, indent=1) + "\n", encoding="utf-8")


def unpack(compact: Path, out: Path) -> Path:
    """Make a student that can be trained of its compact form, at `out`, which must not exist yet.

    Its vectors differ from the compact encoder's only by what multiplying in 8 bits costs.

    Raises: ModelError where a file is missing, was changed since the export, or holds no such weights.
    """
    manifest = read_manifest(compact)
    graph = compact / ONNX_FOLDER / manifest.files[manifest.serves]
    tokenizer = compact / ONNX_FOLDER / TOKENIZER_FILE
    for file in (graph, tokenizer):
        try:
            changed = sha256_of(file) != manifest.sha256[file.name]
        except OSError as problem:
            raise ModelError(f"{file}: cannot be read ({problem.strerror}); export the student again") from None
        if changed:
            raise ModelError(f"{file}: its SHA-256 differs from the one in encoder.json; export the student again")
    initializers = initializers_of(onnx.load(graph))
    shutil.copytree(compact / TORCH_FOLDER, out)
    held: dict[str, dict[str, Held]] = json.loads((out / WEIGHTS_FILE).read_text(encoding="utf-8"))
    (out / WEIGHTS_FILE).unlink()
    for name, weights in held.items():
        arrays = load_file(out / name) if (out / name).is_file() else {}
        filled = {key: tensor.numpy() for key, tensor in arrays.items()}
        filled |= {key: _read(initializers, one, graph) for key, one in weights.items()}
        save_file(filled, out / name, metadata={"format": "pt"})
    shutil.copyfile(tokenizer, out / TOKENIZER_FILE)
    return out


def _read(initializers: Mapping[str, NDArray[np.generic]], one: Held, graph: Path) -> NDArray[np.generic]:
    if one["initializer"] is None:
        return np.zeros(one["shape"], one["dtype"])
    array = stored(initializers, one["initializer"])
    if array is None:
        raise ModelError(f"{graph}: holds no {one['initializer']}; export the student again")
    if one["transposed"]:
        array = array.T
    return np.ascontiguousarray(array.astype(one["dtype"]).reshape(one["shape"]))


def _files(student: Path) -> list[Path]:
    found = []
    for path in sorted(student.rglob("*")):
        parts = path.relative_to(student).parts
        if path.is_file() and parts[0] != ONNX_FOLDER and not any(part.startswith(".") for part in parts):
            found.append(path)
    return found


def _content(array: NDArray[np.generic]) -> tuple[str, tuple[int, ...], str]:
    # An exporter adds and drops dimensions of one.
    shape = tuple(size for size in array.shape if size != 1)
    return str(array.dtype), shape, hashlib.sha256(array.tobytes()).hexdigest()
