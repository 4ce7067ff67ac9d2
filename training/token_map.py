"""Token KD between different widths: the teacher's token vectors in the student's width."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drdecr.encoder.types import Encoder
from training.fit import first_alone
from training.transfer.projection import principal_components


def token_map(teacher: Encoder, width: int, texts: Sequence[str], folder: Path) -> Tensor | None:
    """Return what takes the teacher's tokens to `width`, (teacher's dim, width) float32; None where that is its own.

    A narrower student learns from the teacher's principal directions over `texts`, which keep most of every cosine; a
    wider one from the same vectors with zeros after them. It is found once for a teacher and a width and kept in
    `folder`, so that all stages of a run learn one space.
    """
    dim = teacher.spec.dim
    if width == dim:
        return None
    if width > dim:
        return torch.eye(dim, width)
    file = folder / f"token-map-{teacher.spec.fingerprint[:16]}-{width}.npy"

    def find() -> None:
        if file.is_file():
            return
        vectors = torch.from_numpy(teacher.encode(texts, "passage").vectors)
        folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"partial-{file.name}")
        np.save(partial, principal_components(vectors, width).T.contiguous().numpy())
        partial.replace(file)

    first_alone(find)
    return torch.from_numpy(np.load(file))
