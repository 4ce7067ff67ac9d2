"""Ragged vectors of queries and passages as one small file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_vectors(path: Path, queries: Sequence[Any], passages: Sequence[Any]) -> None:
    """Write both sides' vectors, float32, one (tokens, dim) array a text."""
    arrays = {}
    for side, texts in (("query", queries), ("passage", passages)):
        rows = [np.asarray(text, np.float32) for text in texts]
        arrays[f"{side}_vectors"] = np.concatenate(rows)
        arrays[f"{side}_counts"] = np.array([len(row) for row in rows])
    np.savez_compressed(path, **arrays)


def read_vectors(path: Path) -> dict[str, list[np.ndarray]]:
    """Return one (tokens, dim) array a text for `query` and for `passage`."""
    stored = np.load(path)
    return {
        side: np.split(stored[f"{side}_vectors"], np.cumsum(stored[f"{side}_counts"])[:-1])
        for side in ("query", "passage")
    }
