"""Whether the difference of two systems on the same queries could be chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def randomisation_test(
    first: Sequence[float], second: Sequence[float], *, rounds: int = 10_000, seed: int = 0
) -> float:
    """Return the two-sided p-value of Fisher's paired randomisation test on the mean difference.

    The signs of the per-query differences are flipped at random (Smucker, Allan and Carterette 2007, section 3.3).
    Raises: ValueError for samples of different or no length.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"need two equally long samples, got {len(first)} and {len(second)}")
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    observed = abs(differences.sum())
    random = np.random.default_rng(seed)
    as_extreme = 0
    done = 0
    while done < rounds:
        batch = min(rounds - done, max(1, 2_000_000 // len(differences)))
        signs = random.integers(0, 2, size=(batch, len(differences)), dtype=np.int8) * 2 - 1
        as_extreme += int(np.count_nonzero(np.abs(signs @ differences) >= observed - 1e-12))
        done += batch
    return (as_extreme + 1) / (rounds + 1)
