"""Imports FAISS, and says which extra to install when it is missing or installed twice."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from typing import Any

from drdecr.errors import ResourceError

_DISTRIBUTIONS = {"faiss-cpu": "cpu", "faiss-gpu": "gpu", "faiss-gpu-cu11": "gpu", "faiss-gpu-cu12": "gpu"}


@functools.cache
def load_faiss() -> Any:
    """Import the module `faiss`.

    Raises: ResourceError without FAISS, or with two distributions that overwrite each other's module.
    """
    found = [name for name in _DISTRIBUTIONS if _is_installed(name)]
    if len(found) > 1:
        raise ResourceError(
            f"{' and '.join(found)} are both installed and overwrite each other; "
            f"uninstall both, then install one: pip install 'drdecr[cpu]' or 'drdecr[gpu]'"
        )
    try:
        return importlib.import_module("faiss")
    except ImportError as problem:
        raise ResourceError(
            f"FAISS cannot be imported ({problem}); "
            "install one of its builds: pip install 'drdecr[cpu]' or 'drdecr[gpu]'"
        ) from None


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
