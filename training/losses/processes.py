"""Means over a batch that several processes share."""

from __future__ import annotations

from torch import Tensor, distributed


def count_of_all(count: Tensor) -> Tensor:
    """Return the mean over all processes of a count; of a process alone, the count. `count` is a number.

    Where several processes train together, each divides its sum by this: the trainer averages what they return, and
    the average is then the mean over the whole batch.
    """
    if not distributed.is_initialized():
        return count
    total = count.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
