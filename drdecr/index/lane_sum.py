"""Sums over query lanes, as a part of compiled loops."""

from __future__ import annotations

from typing import Any

from numba import njit


@njit(nogil=True, inline="always")
def lane_sum(values: Any, used: Any) -> Any:
    """Add the first `used` floats up, in four sums, each of which waits only for itself."""
    first, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    fours = used - used % 4
    for lane in range(0, fours, 4):
        first += values[lane]
        second += values[lane + 1]
        third += values[lane + 2]
        fourth += values[lane + 3]
    for lane in range(fours, used):
        first += values[lane]
    return (first + second) + (third + fourth)
