"""Reads the pickled checkpoints of PrimeQA and the first ColBERT without running what they name.

A pickle may name any function of any module to be called while it is read. Here it may name only what those files
hold: tensors, arrays of random states, plain containers, and the run's settings, which become records without code.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from drdecr.errors import ModelError

_STORAGES = tuple(
    f"{kind}Storage"
    for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Byte", "Char", "Bool")
)
_SETTINGS_PACKAGES = ("primeqa", "oneqa", "colbert", "xdr")
_SETTINGS_NAMES = ("ColBERTConfig", "RunConfig", "DefaultVal", "ColBERTArguments")


class SettingsRecord:
    """A settings object of a package that is not here: its attributes, and none of its code."""

    def __init__(self, *_: Any, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"an encoding {encoding!r} that arrays are not stored in")
    return text.encode(encoding)


def _allowed() -> dict[tuple[str, str], Any]:
    from numpy._core.multiarray import _reconstruct, scalar

    allowed: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "defaultdict"): defaultdict,
        ("builtins", "dict"): dict,
        ("builtins", "list"): list,
        ("builtins", "set"): set,
        ("__builtin__", "set"): set,
        ("argparse", "Namespace"): SimpleNamespace,
        ("_codecs", "encode"): _encode,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("torch", "Size"): torch.Size,
        ("torch", "device"): torch.device,
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
        # A tensor without a storage of its own is rebuilt by these classes.
        ("torch", "Tensor"): torch.Tensor,
        ("torch.nn.parameter", "Parameter"): torch.nn.Parameter,
    }
    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed[core, "_reconstruct"] = _reconstruct
        allowed[core, "scalar"] = scalar
    for storage in _STORAGES:
        allowed["torch", storage] = getattr(torch, storage)
    return allowed


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _allowed().get((module, name))
        if found is not None:
            return found
        if module.split(".", maxsplit=1)[0] in _SETTINGS_PACKAGES and name in _SETTINGS_NAMES:
            return SettingsRecord
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint of this kind needs")


class _RestrictedPickle:
    """The part of the module `pickle` that torch asks for."""

    __name__ = "drdecr_restricted_pickle"
    Unpickler = _RestrictedUnpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return _RestrictedUnpickler(file, **options).load()


def _is_archive(path: Path) -> bool:
    """Tell as torch does, which goes by the first bytes: who looks otherwise can be shown another file."""
    with path.open("rb") as file:
        return bool(torch.serialization._is_zipfile(file))


def load_pickled(path: Path) -> dict[str, Any]:
    """Read a checkpoint's dictionary; tensors stay on disk until they are used, where the file allows it.

    Raises: ModelError for a file that is no such checkpoint, or that names anything it should not.
    """
    try:
        zipped = _is_archive(path)
        # torch.load hands such an archive to another reader, which asks no unpickler and runs the code inside.
        if zipped and "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records():
            raise pickle.UnpicklingError("it is a TorchScript archive, whose reading runs code")
        loaded = torch.load(
            path,
            map_location="cpu",
            pickle_module=_RestrictedPickle,
            weights_only=False,
            mmap=True if zipped else None,
        )
    except pickle.UnpicklingError as problem:
        raise ModelError(f"{path}: refused: {problem}; nothing of it was run") from None
    except Exception as problem:  # a pickle can fail in any way
        raise ModelError(f"{path}: cannot be read ({type(problem).__name__}: {problem})") from None
    if not isinstance(loaded, dict) or not isinstance(loaded.get("model_state_dict"), dict):
        raise ModelError(f"{path}: holds no model_state_dict; expected a PrimeQA or ColBERT checkpoint")
    return loaded
