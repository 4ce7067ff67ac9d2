"""In how many bits the models of a training run compute."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from training.recipe import Precision


def in_bfloat16(precision: Precision) -> bool:
    """Return whether to train in mixed precision: with `auto`, where this machine multiplies bfloat16 natively."""
    if precision != "auto":
        return precision == "bfloat16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def mixed(*, bfloat16: bool) -> AbstractContextManager[object]:
    """Return a context in which matrix products are in bfloat16, or as they are."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=bfloat16)
