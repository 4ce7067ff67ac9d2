"""Fewer dimensions a token vector, and fewer token vectors a passage: what a snapshot may leave out to be smaller."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from drdecr.errors import UsageError

MAX_POOL = 16.0


class Reduction(BaseModel):
    """What was left out of token vectors before they were coded.

    Of each vector the first `dims` dimensions are kept (Matryoshka; Kusupati et al. 2022, arXiv 2205.13147), of
    queries too; None keeps all. A passage, or each of its windows, of n token vectors keeps about n / `pool` of them
    (token pooling; Clavié et al. 2024, arXiv 2409.14683); 1 keeps all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dims: int | None = Field(default=None, ge=1)
    pool: Annotated[float, Field(ge=1, le=MAX_POOL, allow_inf_nan=False)] = 1.0

    def __bool__(self) -> bool:
        return self.dims is not None or self.pool > 1

    def width(self, dim: int) -> int:
        """Return how many of a student's dimensions are kept."""
        return dim if self.dims is None else self.dims

    def shorten(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Keep the first dimensions of vectors (n, dim); each gets the length again that it had."""
        if self.dims is None or vectors.shape[1] == self.dims:
            return vectors
        return with_lengths(vectors[:, : self.dims], np.linalg.norm(vectors, axis=1))


WHOLE = Reduction()
"""Nothing is left out."""


def reduction_of(dims: int | None, pool: float, dim: int, name: str) -> Reduction:
    """Check a wish against a student of `dim` dimensions, called `name`. Raises: UsageError."""
    if dims is not None and not 1 <= dims <= dim:
        raise UsageError(f"dims must be 1 to {dim}, the dimensions of {name}; got {dims}")
    if not 1 <= pool <= MAX_POOL:
        raise UsageError(f"pool must be 1 (no pooling) to {MAX_POOL:g}, got {pool:g}")
    return Reduction(dims=None if dims == dim else dims, pool=pool)


def with_lengths(vectors: NDArray[np.float32], lengths: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors (n, dim) to these lengths (n,); one without a direction stays zero."""
    found = np.linalg.norm(vectors, axis=1)
    scale = np.divide(lengths, found, out=np.zeros_like(found), where=found > 0)
    return np.ascontiguousarray(vectors * scale[:, None], dtype=np.float32)
